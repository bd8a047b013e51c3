"""What a config's ``model.prune`` section prunes of a model, and when."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdlopt.config import Choice, Count, Fraction, Rate, Scalar
from jdlopt.errors import ConfigError, listing
from jdlopt.models.masks import largest, n_of_m
from jdlopt.models.units import HEAD, Path, Shapes, Unit, alone, name_of, units_of

CRITERIA = ("magnitude", "gradient", "movement")
SCOPES = ("global", "layer")
UPDATES = 100
"""How often masks are made anew in a whole training, unless ``every`` says otherwise."""
KERNEL = re.compile(r"kernel$")
N_OF_M = re.compile(r"(\d+):(\d+)")
Flat = dict[Path, Array]


@dataclass(frozen=True)
class PruneFields:
    """The ``model.prune`` section: which weights are set to 0 while training, and when.

    Attributes:
      criterion: what says how much a weight matters: its ``magnitude``; the mean of
        ``|weight · gradient|`` over the last steps (``gradient``); or how far training has moved it
        away from 0, the sum of ``-weight · gradient`` (``movement``). None: nothing is pruned.
      sparsity: the share of the weights (or units) that are 0 in the end.
      structure: ``weights`` one by one; ``N:M``, such as ``2:4``, which keeps N of each M
        neighbouring inputs; or ``units``: channels, heads and units as a whole.
      scope: whether ``sparsity`` is a share of all chosen weights together, or of each layer's.
      start, end: when the first and the last weight is pruned, as shares of the training; between
        them, sparsity rises as a cubic does, fast at first. Equal: all at once. None: 0 and a half;
        of N:M, a third for both.
      every: steps from one choice of weights to the next; None: a hundredth of the training.
      patterns: regular expressions of the paths of the parameters that are pruned; (): all kernels
        but the head's, and of units, those that no other layer's are added to.
    """

    criterion: Annotated[str, Choice(CRITERIA)] | None = None
    sparsity: Rate | None = None
    structure: str = "weights"
    scope: Annotated[str, Choice(SCOPES)] = "global"
    start: Fraction | None = None
    end: Fraction | None = None
    every: Count | None = None
    patterns: tuple[str, ...] = ()


# --- when -----------------------------------------------------------------------------------------


class Schedule(NamedTuple):
    """The course of pruning; the floats may be traced.

    Attributes:
      sparsity: in the end.
      start, end: the calls of the model in training mode between which it rises to that.
      last: the number of the last call.
      every: calls from one choice of weights to the next.
    """

    sparsity: Scalar
    start: Scalar
    end: Scalar
    last: int
    every: int


def schedule_of(
    section: Mapping[str, Any], hparams: Mapping[str, Any], steps: int, calls: int = 1
) -> Schedule:
    """Returns the course that a section asks for.

    Args:
      section: ``model.prune``.
      hparams: floats that go before the section's.
      steps: updates in the whole training.
      calls: of the model in an update: its micro-batches.
    """
    values = {**section, **hparams}
    defaults = (1 / 3, 1 / 3) if N_OF_M.fullmatch(section["structure"]) else (0.0, 0.5)
    last = max(1, steps * calls - 1)
    start, end = (
        _call(default if values[key] is None else values[key], last)
        for key, default in zip(("start", "end"), defaults, strict=True)
    )
    every = (section["every"] or max(1, steps // UPDATES)) * calls
    sparsity = 0.0 if values["sparsity"] is None else values["sparsity"]
    return Schedule(sparsity, start, end, last, every)


def _call(share: Scalar, last: int) -> Scalar:
    """The call after a share of all, in float32 on the host too: both must mean the same one."""
    if isinstance(share, jax.Array):
        return share * np.float32(last)
    return float(np.float32(share) * np.float32(last))


def sparsity_at(call: Int[Array, ""], schedule: Schedule) -> Float[Array, ""]:
    r"""Returns the sparsity of the masks that are made in a call.

    ``s · (1 - (1 - t)³)``, where ``t`` goes from 0 at ``start`` to 1 at ``end``. Zhu and Gupta, "To
    prune, or not to prune", 2017.

    Example:
      >>> schedule = Schedule(0.8, start=0.0, end=4.0, last=8, every=1)
      >>> [round(float(sparsity_at(jnp.int32(call), schedule)), 3) for call in (0, 2, 4)]
      [0.0, 0.7, 0.8]
    """
    span = jnp.maximum(schedule.end - schedule.start, 1e-6)
    passed = jnp.clip((call - schedule.start) / span, 0, 1)
    passed = jnp.where(call >= jnp.maximum(schedule.start, schedule.end), 1.0, passed)
    return jnp.float32(1.0) * schedule.sparsity * (1 - (1 - passed) ** 3)


def is_due(call: Int[Array, ""], schedule: Schedule) -> Int[Array, ""]:
    """Returns whether masks are made in a call, as 0 or 1."""
    on_time = (call % schedule.every == 0) | (call == schedule.last)
    end = jnp.maximum(schedule.start, schedule.end)
    unsettled = call - schedule.every < end
    return (on_time & (call >= schedule.start) & unsettled).astype(jnp.int32)


def settled_after(section: Mapping[str, Any], steps: int) -> int:
    """Returns the updates after which masks stay as they are; 0 where nothing is pruned.

    Args:
      section: ``model.prune``.
      steps: updates in the whole training.

    Example:
      >>> settled_after(vars(PruneFields("magnitude", 0.5, every=10)), steps=101)
      51
    """
    if section["criterion"] is None:
        return 0
    schedule = schedule_of(section, {}, steps)
    end = float(max(schedule.start, schedule.end))
    grid = int(-(-end // schedule.every)) * schedule.every
    return min(grid, schedule.last, steps - 1) + 1


# --- what -----------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What is pruned, of a model of known shapes.

    Attributes:
      kernels: the paths of what is scored.
      units: by the name of their layer, where whole units go.
      of: N and M, where N of each M weights stay.
      stacked: the kernels with a leading axis of layers.
      by_layer: whether sparsity is a share of each layer.
      regrows: whether a weight may come back.
      ranks: dimensions of each parameter.
    """

    kernels: tuple[Path, ...]
    units: dict[str, Unit]
    of: tuple[int, int] | None
    stacked: tuple[Path, ...]
    by_layer: bool
    regrows: bool
    ranks: dict[Path, int]


def plan_of(
    section: Mapping[str, Any], shapes: Shapes, heads: int | None = None, stacked: str = "$^"
) -> Plan:
    """Returns what a section prunes of a model with these parameters.

    Raises:
      ConfigError: its patterns choose nothing, or what can't be pruned so.
    """
    kernels, units = _chosen(section, shapes), {}
    if section["structure"] == "units":
        units = units_of(shapes, kernels, heads=heads, stacked=re.compile(stacked))
        kernels = [path for unit in units.values() for path in unit.kernels]
    match = N_OF_M.fullmatch(section["structure"])
    of = (int(match[1]), int(match[2])) if match else None
    if of:
        _check_divides(of[1], section["structure"], {path: shapes[path] for path in kernels})
    return Plan(
        tuple(kernels),
        units,
        of,
        tuple(path for path in kernels if re.search(stacked, name_of(path))),
        section["scope"] == "layer",
        section["criterion"] == "movement",
        {path: len(shape) for path, shape in shapes.items()},
    )


def whole(plan: Plan, shapes: Shapes) -> Flat:
    """Returns the masks that leave all weights in."""
    if not plan.units:
        return {path: jnp.ones(shapes[path], bool) for path in plan.kernels}
    made: Flat = {}
    for unit in plan.units.values():
        layers = shapes[next(iter(unit.kernels))][: int(unit.stacked)]
        made |= unit.masks(jnp.ones((*layers, unit.size), bool), plan.ranks)
    return made


def chosen_masks(plan: Plan, scores: Flat, old: Flat, sparsity: Scalar) -> Flat:
    """Returns the masks of a sparsity.

    Args:
      plan: what is pruned.
      scores: of each kernel's weights; the smallest go.
      old: the masks so far; what they leave out stays out, unless it may come back.
      sparsity: the share that goes; N of M need none.
    """
    if plan.units:
        by_unit = {name: unit.scores(scores) for name, unit in plan.units.items()}
        if not plan.regrows:
            by_unit = {
                name: jnp.where(plan.units[name].of_mask(old), one, -jnp.inf)
                for name, one in by_unit.items()
            }
        layers = [name for name, unit in plan.units.items() if unit.stacked]
        kept = largest(by_unit, sparsity, by_layer=plan.by_layer, stacked=layers)
        made: Flat = {}
        for name, unit in plan.units.items():
            # a layer without units would let nothing through
            best = by_unit[name] == by_unit[name].max(axis=-1, keepdims=True)
            made |= unit.masks(kept[name] | best, plan.ranks)
        return made
    if not plan.regrows:
        scores = {path: jnp.where(old[path], one, -jnp.inf) for path, one in scores.items()}
    if plan.of:
        made = {path: n_of_m(one, *plan.of) for path, one in scores.items()}
    else:
        made = largest(scores, sparsity, by_layer=plan.by_layer, stacked=plan.stacked)
    return made if plan.regrows else {path: mask & old[path] for path, mask in made.items()}


# --- what can't be --------------------------------------------------------------------------------


def check(section: Mapping[str, Any]) -> None:
    """Checks what a section says, whatever the model.

    Raises:
      ConfigError: it contradicts itself, or says too little.
    """
    structure, sparsity = section["structure"], section["sparsity"]
    if section["criterion"] is None:
        if sparsity is not None:
            raise ConfigError(
                "model.prune.sparsity: nothing is pruned without a criterion: give "
                f"model.prune.criterion, one of {listing(CRITERIA)}."
            )
        return
    match = N_OF_M.fullmatch(structure)
    if match and not 1 <= int(match[1]) < int(match[2]):
        raise ConfigError(
            f"model.prune.structure: {structure!r} keeps {match[1]} of each {match[2]} weights; "
            "expected at least 1 and fewer than all, such as '2:4'."
        )
    if not match and structure not in ("weights", "units"):
        raise ConfigError(
            f"model.prune.structure: {structure!r} is unknown: expected 'weights', 'units', or N:M "
            "such as '2:4'."
        )
    if match and sparsity is not None:
        raise ConfigError(
            f"model.prune.sparsity: {structure!r} says already how much goes: leave it out."
        )
    if not match and sparsity is None:
        raise ConfigError("model.prune.sparsity: is missing: the share that goes, such as 0.9.")
    start, end = section["start"], section["end"]
    if start is not None and end is not None and end < start:
        raise ConfigError(f"model.prune.end: {end} is before model.prune.start, {start}.")
    if section["criterion"] != "magnitude" and end == 0:
        raise ConfigError(
            f"model.prune.end: {section['criterion']!r} goes by gradients, and before the first "
            "step there are none: end later, or prune by 'magnitude'."
        )
    for pattern in section["patterns"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"model.prune.patterns: {pattern!r} is not a regular expression of parameter "
                f"paths: {error}."
            ) from error


def _check_divides(m: int, structure: str, shapes: Shapes) -> None:
    unfit = [
        f"{name_of(path)} ({shape[-2]} inputs)" for path, shape in shapes.items() if shape[-2] % m
    ]
    if unfit:
        raise ConfigError(
            f"model.prune.structure: {structure!r} takes inputs in groups of {m}, which does not "
            f"divide those of {listing(unfit, 4)}. Name the others in model.prune.patterns."
        )


def _chosen(section: Mapping[str, Any], shapes: Shapes) -> list[Path]:
    """The kernels to prune; each pattern must choose one."""
    units = section["structure"] == "units"
    able = [path for path, shape in shapes.items() if len(shape) >= 2]
    names = [name_of(path) for path in able]
    if not section["patterns"]:
        kernels = [
            path
            for path in able
            if KERNEL.search(name_of(path))
            and not HEAD.search(name_of(path))
            and (not units or alone(path, shapes))
        ]
        if not kernels:
            raise ConfigError(
                "model.prune: this model has no kernels but its head's"
                + (", or none whose units could go alone" if units else "")
                + f": name some in model.prune.patterns. There are {listing(names)}."
            )
        return kernels
    for pattern in section["patterns"]:
        if not any(re.search(pattern, name) for name in names):
            vector = any(re.search(pattern, name_of(path)) for path in shapes)
            why = "matches only vectors, which stay" if vector else "matches no parameter"
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
            near = f"The nearest are {listing(close)}" if close else f"There are {listing(names)}"
            raise ConfigError(f"model.prune.patterns: {pattern!r} {why}. {near}.")
    kernels = [
        path
        for path in able
        if any(re.search(pattern, name_of(path)) for pattern in section["patterns"])
    ]
    heads = [name_of(path) for path in kernels if HEAD.search(name_of(path))]
    if units and heads:
        raise ConfigError(
            f"model.prune.patterns: the units of {listing(heads)} are the outputs themselves, "
            "which can't go: leave them out of the patterns."
        )
    return kernels
