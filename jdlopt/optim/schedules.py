"""Learning-rate schedules: from a step to the factor that multiplies the learning rate.

Every float is traced, so one compiled program serves all their values. A schedule is a plain
function `schedule(step, total_steps, **keys)`; its keyword parameters are its config keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jdlopt.config import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Rate,
    Value,
    find_part,
    own_keys,
)
from jdlopt.errors import ConfigError

Step = Int[Array, ""] | int
Factor = Float[Array, ""]


def constant(step: Step, total_steps: int) -> Factor:
    """Keeps the full learning rate: ``1``."""
    del step, total_steps
    return jnp.ones(())


def linear(step: Step, total_steps: int, *, end_fraction: Fraction = 0.0) -> Factor:
    """Falls in a straight line: ``1 - (1 - end) · step / total``.

    Args:
      step: how many updates were made before this one.
      total_steps: the steps that the fall takes; afterwards the factor stays at its end.
      end_fraction: the factor at the end.

    Example:
      >>> print(linear(25, 100, end_fraction=0.2))
      0.8
    """
    return optax.linear_schedule(1.0, end_fraction, total_steps)(step)


def polynomial(
    step: Step, total_steps: int, *, power: Positive = 2.0, end_fraction: Fraction = 0.0
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
    return optax.polynomial_schedule(1.0, end_fraction, power, total_steps)(step)


def cosine(step: Step, total_steps: int, *, end_fraction: Fraction = 0.0) -> Factor:
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
    return optax.cosine_decay_schedule(1.0, total_steps, end_fraction)(step)


def exponential(
    step: Step,
    total_steps: int,
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
    total_steps: int,
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
    step: Step, total_steps: int, *, boundaries: tuple[int, ...] = (), factor: Positive = 0.1
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
    total_steps: int,
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
    total_steps: int,
    *,
    factor: Annotated[float, Range(0, 1, low_open=True, high_open=True)] = 0.1,
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
      options: the schedule's own keys.
    """

    name: str = "constant"
    warmup_steps: Natural = 0
    options: Mapping[str, Value] = own_keys()


def make_schedule(
    section: Mapping[str, Any], total_steps: int
) -> Callable[[Step, Mapping[str, Any]], Factor]:
    """Returns ``(step, hparams) → factor`` for the ``optim.schedule`` section of a config.

    With ``w`` warm-up steps the factor is ``step / w · f(0)`` first and ``f(step - w)`` over the
    other ``total_steps - w`` steps after them.

    Args:
      section: the section; its floats are the defaults of those missing from ``hparams``.
      total_steps: updates in the whole training, the warm-up included.

    Raises:
      ConfigError: the warm-up is longer than the training, or the schedule's name is unknown.
    """
    keys = dict(section)
    name, warmup_steps = keys.pop("name", "constant"), keys.pop("warmup_steps", 0)
    schedule = find_part(name, SCHEDULES, "optim.schedule.name")
    if warmup_steps > total_steps:
        raise ConfigError(
            f"optim.schedule.warmup_steps is {warmup_steps}, but the training has only "
            f"{total_steps} steps: warm up for fewer steps, or train longer."
        )
    main_steps = max(total_steps - warmup_steps, 1)

    def factor(step: Step, hparams: Mapping[str, Any]) -> Factor:
        main_step = jnp.maximum(step - warmup_steps, 0) if warmup_steps else step
        main = schedule(main_step, main_steps, **{**keys, **hparams})
        if not warmup_steps:
            return main
        return jnp.minimum(step / warmup_steps, 1.0) * main

    return factor


def plateau_keys(section: Mapping[str, Any], total_steps: int) -> dict[str, Any] | None:
    """Returns the keys of `update_plateau` if the section asks for reductions, else None."""
    if section.get("name") != "reduce_on_plateau":
        return None
    declared = reduce_on_plateau.__kwdefaults__ or {}
    keys = {key: section.get(key, default) for key, default in declared.items()}
    keys["accumulation_steps"] = keys["accumulation_steps"] or max(total_steps // 100, 1)
    return keys
