"""Learning-rate schedules: from a step to the factor that multiplies the learning rate.

Every float is traced, so one compiled program serves all their values. A schedule is a plain
function `schedule(step, total_steps, **keys)`; its keyword parameters are its config keys. After a
warm-up that is a fraction of the training, ``total_steps`` is traced as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jdlopt.config import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Rate,
    Scalar,
    Value,
    fields_of,
    find_part,
    own_keys,
)
from jdlopt.errors import ConfigError

Step = Int[Array, "*steps"] | int
Steps = Int[Array, ""] | int
"""A number of steps, traced where it depends on a float."""
Factor = Float[Array, "*steps"]


def constant(step: Step, total_steps: Steps) -> Factor:
    """Keeps the full learning rate: ``1``."""
    del step, total_steps
    return jnp.ones(())


def linear(step: Step, total_steps: Steps, *, end_fraction: Fraction = 0.0) -> Factor:
    """Falls in a straight line: ``1 - (1 - end) · step / total``.

    Args:
      step: how many updates were made before this one.
      total_steps: the steps that the fall takes; afterwards the factor stays at its end.
      end_fraction: the factor at the end.

    Example:
      >>> print(linear(25, 100, end_fraction=0.2))
      0.8
    """
    return polynomial(step, total_steps, power=1.0, end_fraction=end_fraction)


def polynomial(
    step: Step, total_steps: Steps, *, power: Positive = 2.0, end_fraction: Fraction = 0.0
) -> Factor:
    """Falls as a power of the time left: ``end + (1 - end) · (1 - step / total)^power``.

    Args:
      step: how many updates were made before this one.
      total_steps: the steps that the fall takes.
      power: 1 is a straight line; more falls sooner.
      end_fraction: the factor at the end.

    Example:
      >>> print(polynomial(50, 100, power=2.0))
      0.25
    """
    left = 1 - jnp.clip(step, 0, total_steps) / total_steps
    return (1.0 - end_fraction) * left**power + end_fraction


def cosine(step: Step, total_steps: Steps, *, end_fraction: Fraction = 0.0) -> Factor:
    """Falls along half a cosine: ``end + (1 - end) · (1 + cos(π · step / total)) / 2``.

    Loshchilov and Hutter, "SGDR", 2017 (one cycle, no restarts).

    Args:
      step: how many updates were made before this one.
      total_steps: the steps that the fall takes.
      end_fraction: the factor at the end.

    Example:
      >>> print(cosine(100, 100, end_fraction=0.25))
      0.25
    """
    return _half_cosine(1.0, end_fraction, jnp.asarray(step / total_steps))


def cosine_log(step: Step, total_steps: Steps, *, cycles: Count = 4) -> Factor:
    """Rises and falls in c cycles, each twice as long as the one before.

    ``(1 - cos(2π · log2(1 + (2^c - 1) · step / total))) / 2``: 0 at both ends and between cycles.
    Holzmüller, Grinsztajn and Steinwart, "Better by default", 2024.

    Args:
      step: how many updates were made before this one.
      total_steps: the steps that all cycles take.
      cycles: how many.

    Example:
      >>> [round(float(cosine_log(step, 30, cycles=4)), 3) for step in (0, 2, 30)]
      [0.0, 0.0, 0.0]
    """
    share = jnp.clip(step, 0, total_steps) / total_steps
    return 0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.log2(1 + (2.0**cycles - 1) * share))


def exponential(
    step: Step,
    total_steps: Steps,
    *,
    decay_rate: Positive = 0.1,
    transition_steps: Count | None = None,
    staircase: bool = False,
) -> Factor:
    """Multiplies by a rate per transition: ``decay_rate^(step / transition_steps)``.

    Args:
      step: how many updates were made before this one.
      total_steps: the length of the training.
      decay_rate: what one transition multiplies the factor by.
      transition_steps: steps in one transition; None: the whole training is one, so that
        ``decay_rate`` is the factor at its end.
      staircase: whether the factor changes only at the end of each transition.

    Example:
      >>> print(exponential(20, 100, decay_rate=0.5, transition_steps=10))
      0.25
    """
    transitions = step / (transition_steps or total_steps)
    if staircase:
        transitions = jnp.floor(transitions)
    return jnp.asarray(decay_rate) ** transitions


def natural_exponential(
    step: Step,
    total_steps: Steps,
    *,
    decay_rate: NonNegative = 3.0,
    transition_steps: Count | None = None,
) -> Factor:
    """Decays by a natural exponent: ``exp(-decay_rate · step / transition_steps)``.

    Args:
      step: how many updates were made before this one.
      total_steps: the length of the training.
      decay_rate: the exponent per transition; 0 keeps the learning rate constant.
      transition_steps: steps in one transition; None: the whole training is one.

    Example:
      >>> print(f"{natural_exponential(10, 100, decay_rate=0.5, transition_steps=10):.4f}")
      0.6065
    """
    return jnp.exp(-decay_rate * (step / (transition_steps or total_steps)))


def piecewise_constant(
    step: Step, total_steps: Steps, *, boundaries: tuple[int, ...] = (), factor: Positive = 0.1
) -> Factor:
    """Multiplies by a factor at each boundary: ``factor^(number of boundaries ≤ step)``.

    Args:
      step: how many updates were made before this one.
      total_steps: the length of the training.
      boundaries: the steps, counted from the end of the warm-up, from which each drop holds.
      factor: what each drop multiplies by.

    Example:
      >>> [float(piecewise_constant(s, 9, boundaries=(2, 4), factor=0.5)) for s in (1, 2, 4)]
      [1.0, 0.5, 0.25]
    """
    del total_steps
    drops = sum(((step >= jnp.asarray(edge)).astype(jnp.float32) for edge in boundaries), 0.0)
    return jnp.asarray(factor) ** drops


def one_cycle(
    step: Step,
    total_steps: Steps,
    *,
    rise_fraction: Fraction = 0.3,
    start_fraction: Fraction = 0.04,
    end_fraction: Fraction = 4e-6,
) -> Factor:
    """Rises along half a cosine to the full learning rate, then falls along another.

    Smith and Topin, "Super-Convergence", 2017. The defaults are PyTorch's and optax's: starting at
    1/25 of the peak, ending at 1/10,000 of that. The peak need not fall on a whole step.

    Args:
      step: how many updates were made before this one.
      total_steps: the length of the cycle.
      rise_fraction: the part of the cycle spent rising.
      start_fraction: the factor at the start.
      end_fraction: the factor at the end.

    Example:
      >>> print(one_cycle(30, 100))
      1.0
    """
    top = jnp.asarray(rise_fraction) * total_steps
    rising = _half_cosine(start_fraction, 1.0, step / jnp.maximum(top, 1e-6))
    falling = _half_cosine(1.0, end_fraction, (step - top) / jnp.maximum(total_steps - top, 1e-6))
    return jnp.where(step < top, rising, falling)


def _half_cosine(start: Any, end: Any, progress: Array) -> Array:
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))


def reduce_on_plateau(
    step: Step,
    total_steps: Steps,
    *,
    factor: Annotated[Scalar, Range(0, 1, low_open=True, high_open=True)] = 0.1,
    patience: Count = 5,
    relative_tolerance: Rate = 1e-4,
    cooldown: Natural = 0,
    accumulation_steps: Count | None = None,
    end_fraction: Fraction = 0.0,
) -> Factor:
    """Multiplies the learning rate by a factor whenever the training loss stops falling.

    The step alone says nothing of that, so this part is 1; the reductions are kept in the
    optimizer's state (`jdlopt.optim.transforms.update_plateau`), which sees the loss of each step.

    Args:
      step: how many updates were made before this one.
      total_steps: the length of the training.
      factor: what each reduction multiplies by.
      patience: windows in a row without a new best mean loss that lead to a reduction.
      relative_tolerance: by what part of itself the best loss must fall to count as improved.
      cooldown: windows after a reduction in which none is counted.
      accumulation_steps: steps in a window, over which the loss is averaged; None: a hundredth
        of the training.
      end_fraction: the factor below which no reduction goes.
    """
    del factor, patience, relative_tolerance, cooldown, accumulation_steps, end_fraction
    return constant(step, total_steps)


SCHEDULES: dict[str, Callable[..., Factor]] = {
    "constant": constant,
    "exponential": exponential,
    "natural_exponential": natural_exponential,
    "piecewise_constant": piecewise_constant,
    "linear": linear,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine_log": cosine_log,
    "one_cycle": one_cycle,
    "reduce_on_plateau": reduce_on_plateau,
}


@dataclass(frozen=True)
class ScheduleFields:
    """The ``optim.schedule`` section: what every schedule has, and the named schedule's own.

    Attributes:
      name: a `SCHEDULES` entry, or ``package.module:function`` of the same signature.
      warmup_steps: steps of a linear rise from 0 to the schedule's first value, which goes before
        the schedule and counts as part of the training.
      warmup_fraction: the same as a share of the whole training, rounded to whole steps; instead
        of ``warmup_steps``.
      options: the schedule's own keys.
    """

    name: str = "constant"
    warmup_steps: Natural = 0
    warmup_fraction: Fraction | None = None
    options: Mapping[str, Value] = own_keys()


def make_schedule(
    section: Mapping[str, object], total_steps: int
) -> Callable[[Step, Mapping[str, Any]], Factor]:
    """Returns ``(step, hparams) → factor`` for the ``optim.schedule`` section of a config.

    With ``w`` warm-up steps the factor is ``step / w · f(0)`` first and ``f(step - w)`` over the
    other ``total_steps - w`` steps after them. ``w`` is ``warmup_steps``, or ``warmup_fraction ·
    total_steps`` rounded, which is traced.

    Args:
      section: the section; its floats are the defaults of those missing from ``hparams``.
      total_steps: updates in the whole training, the warm-up included.

    Raises:
      ConfigError: the warm-up is longer than the training or given twice, or the schedule's name
        is unknown.
    """
    keys = dict(section)
    schedule = find_part(keys.pop("name", "constant"), SCHEDULES, "optim.schedule.name")
    warmup_steps, fraction = keys.pop("warmup_steps", 0), keys.pop("warmup_fraction", None)
    problem = warmup_problem(section, total_steps)
    if problem:
        raise ConfigError(problem)

    def factor(step: Step, hparams: PyTree) -> Factor:
        one = "a schedule is of one run; for several use jax.vmap"
        chex.assert_rank([step, *jax.tree.leaves(hparams)], 0, custom_message=one)
        floats = {**keys, **hparams}
        warmup: Any = warmup_steps
        if fraction is not None:
            share = jnp.asarray(floats.pop("warmup_fraction", fraction))
            warmup = jnp.round(share * total_steps).astype(jnp.int32)
        elif not warmup_steps:
            return schedule(step, total_steps, **floats)
        main_steps = jnp.maximum(total_steps - warmup, 1)
        main = schedule(jnp.maximum(step - warmup, 0), main_steps, **floats)
        return jnp.where(step < warmup, step / jnp.maximum(warmup, 1), 1.0) * main

    return factor


def warmup_problem(section: Mapping[str, Any], total_steps: int) -> str | None:
    """Returns what is wrong with the warm-up of an ``optim.schedule`` section, if anything."""
    steps = section.get("warmup_steps", 0)
    if steps and section.get("warmup_fraction") is not None:
        return (
            f"optim.schedule: warmup_steps is {steps} and warmup_fraction is "
            f"{section['warmup_fraction']}; give one of the two: set warmup_steps to 0 or "
            "warmup_fraction to None."
        )
    if steps > total_steps:
        return (
            f"optim.schedule.warmup_steps: {steps} is more than the {total_steps} steps of the "
            "whole training: warm up for fewer steps or a warmup_fraction, or train longer."
        )
    return None


def plateau_keys(section: Mapping[str, object], total_steps: int) -> dict[str, Any] | None:
    """Returns the keys of `update_plateau` if the section asks for reductions, else None."""
    if section.get("name") != "reduce_on_plateau":
        return None
    declared = fields_of(reduce_on_plateau)
    keys = {key: section.get(key, field.default) for key, field in declared.items()}
    keys["accumulation_steps"] = keys["accumulation_steps"] or max(total_steps // 100, 1)
    return keys
