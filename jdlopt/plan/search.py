"""The mesh, rematerialisation, accumulation and batch of a training that suit a machine.

All that could be had are estimated (`jdlopt.plan.analytic`), cheapest first, and the best are
compiled, which alone tells whether they fit. What the compiler says of memory corrects the estimate
of those that are left.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import writing
from jdlopt.config import override, to_dict
from jdlopt.errors import ConfigError, UserError
from jdlopt.mesh import axis_sizes, batch_ways
from jdlopt.mesh.axes import AXES
from jdlopt.plan.analytic import Estimate, estimated
from jdlopt.plan.chips import Chip
from jdlopt.plan.experiments import workloads
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config

REMATS = ("none", "dots_no_batch", "full")
"""What is tried of ``model.remat``."""
ACCUMULATES = (1, 2, 4, 8)
"""What is tried of ``optim.accumulate``."""
MORE_BATCHES = (1, 2, 4, 8, 16)
"""What the config's batch is tried times, where it may be another one."""
MOST_TENSOR = 16
"""The widest tensor parallelism that is tried."""
COMPILED = 3
"""How many candidates that fit are compiled."""
MOST_COMPILED = 8
"""How many are compiled at most until so many fit."""
ALIKE = 0.02
"""Estimates that differ by less are alike: the fewest changes win."""


class Verdict(NamedTuple):
    """What compiling a candidate says.

    Attributes:
      fits: whether it does.
      peak: bytes on a chip.
      seconds: of a step; infinite where it doesn't fit.
      said: what is wrong with it, where it can't be compiled at all.
      plan: the whole plan, for whoever made it.
    """

    fits: bool
    peak: float
    seconds: float
    said: str = ""
    plan: object = None


Compile = Callable[[Sequence[Mapping[str, Any]]], Iterator[Verdict]]
"""Compiles configs one after the other, as they are asked for."""


@dataclass(frozen=True)
class Candidate:
    """One way to lay a training out.

    Attributes:
      mesh: devices along each axis.
      batch_size, accumulate: examples and micro-batches in a step.
      model: other keys of the model: ``remat``, ``scan_layers``.
    """

    mesh: Mapping[str, int]
    batch_size: int
    accumulate: int
    model: Mapping[str, Any]

    @property
    def way(self) -> tuple[tuple[str, Any], ...]:
        """Which traced step it is."""
        return tuple(sorted(self.model.items()))

    def assignments(self) -> dict[str, Any]:
        """Returns it as keys of a config and their values."""
        return {
            **{f"mesh.{axis}": size for axis, size in self.mesh.items()},
            "data.batch_size": self.batch_size,
            "optim.accumulate": self.accumulate,
            **{f"model.{key}": value for key, value in self.model.items()},
        }


@dataclass(frozen=True)
class Ranked:
    """A candidate with what is known of it.

    Attributes:
      candidate, estimate: it, and what is estimated.
      verdict: what compiling it said; None: it wasn't.
    """

    candidate: Candidate
    estimate: Estimate
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Found:
    """What a search comes to.

    Attributes:
      best: the winner.
      lines: the keys that differ from the config, as a command line takes them after ``--config.``.
      config: the config with them.
      compiled: all that were compiled, the best first.
      ranked: all that were estimated, the best first.
    """

    best: Ranked
    lines: tuple[str, ...]
    config: Mapping[str, Any]
    compiled: tuple[Ranked, ...]
    ranked: tuple[Ranked, ...] = field(repr=False)

    def write(self, path: Path) -> None:
        """Writes the config, as ``--config`` takes it."""
        writing.write_aside(path, json.dumps(self.config, indent=2) + "\n")


def search(
    experiment: Experiment,
    chip: Chip,
    chips: int,
    *,
    slices: int = 1,
    compile: Compile | None = None,
    same_batch: bool = False,
) -> Found:
    """Returns the fastest layout of a training that fits a machine.

    Fastest are the most examples a second; of layouts that are alike, the one that changes the
    config least.

    Args:
      experiment: built for so many devices.
      chip, chips, slices: the machine.
      compile: compiles candidates; None, as for GPUs, takes the best estimate.
      same_batch: whether the batch size stays as it is.

    Raises:
      UserError: nothing fits; the message has the least that was found, and what to try.
    """
    config = experiment.config
    ranked = rank(experiment, chip, chips, slices=slices, same_batch=same_batch)
    if not ranked:
        raise UserError(
            f"--search: data.batch_size={config.data.batch_size} can be split over no mesh of "
            f"{chips} chips. Give a multiple of {chips}, or of a divisor of it."
        )
    tried = _compiled(ranked, config, compile) if compile is not None else []
    fitting = [one for one in tried if one.verdict is not None and one.verdict.fits]
    if compile is None:
        fitting = [one for one in ranked if one.estimate.fits][:1]
    if not fitting:
        raise UserError(_nothing(tried or ranked, chip, chips))
    fitting.sort(key=_pace)
    best = fitting[0]
    rest = [one for one in tried if one not in fitting]
    lines = tuple(f"{key}={value}" for key, value in _changes(best.candidate, config).items())
    made = override(config.to_dict(), _changes(best.candidate, config))
    return Found(best, lines, to_dict(made), (*fitting, *rest) if tried else (), tuple(ranked))


def rank(
    experiment: Experiment, chip: Chip, chips: int, *, slices: int = 1, same_batch: bool = False
) -> list[Ranked]:
    """Returns every layout with its estimate, the fastest that fits first."""
    config = experiment.config
    works = workloads(experiment)
    found = []
    for one in candidates(experiment, chips, slices, same_batch):
        try:
            estimate = estimated(
                works(one.model),
                chip,
                one.mesh,
                one.batch_size,
                accumulate=one.accumulate,
                slices=slices,
            )
        except ConfigError:  # widths or slices that such a mesh can't share
            continue
        found.append(Ranked(one, estimate))
    return sorted(found, key=lambda one: _order(one, config, 1.0))


def candidates(
    experiment: Experiment, chips: int, slices: int = 1, same_batch: bool = False
) -> Iterator[Candidate]:
    """Yields the layouts that a machine and a config allow.

    Args:
      experiment: the training.
      chips, slices: the machine.
      same_batch: whether the batch size stays as it is.
    """
    config = experiment.config
    options = config.model.options
    remats = REMATS if "remat" in options else (None,)
    scans = (False, True) if options.get("scan_layers") is False else (None,)
    if any(options.get(key) for key in ("layer_heads", "layer_mlp_features")):
        scans = (None,)
    held = options.get("num_heads")
    heads = held if isinstance(held, int) else 0
    size, most = config.data.batch_size, experiment.spec.sizes["train"]
    sizes = [size] if same_batch else [size * more for more in MORE_BATCHES if size * more <= most]
    for mesh in meshes_of(chips, slices):
        if heads % mesh["tensor"]:
            continue
        ways = batch_ways({**dict.fromkeys(AXES, 1), **mesh})
        for remat, scan, batch, parts in itertools.product(
            remats, scans, sizes or [size], ACCUMULATES
        ):
            if batch % (ways * parts):
                continue
            model = {"remat": remat, "scan_layers": scan}
            kept = {key: value for key, value in model.items() if value is not None}
            yield Candidate(mesh, batch, parts, kept)


def meshes_of(chips: int, slices: int = 1) -> list[dict[str, int]]:
    """Returns the meshes of so many chips over ``data``, ``fsdp`` and ``tensor``.

    Example:
      >>> [tuple(mesh.values()) for mesh in meshes_of(4)]
      [(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2), (1, 1, 4)]
    """
    found = []
    for data in _divisors(chips)[::-1]:
        if data % slices:
            continue
        for fsdp in _divisors(chips // data)[::-1]:
            tensor = chips // data // fsdp
            if tensor <= MOST_TENSOR:
                found.append({"data": data, "fsdp": fsdp, "tensor": tensor})
    return found


def _divisors(count: int) -> list[int]:
    return [number for number in range(1, count + 1) if count % number == 0]


# --- order ----------------------------------------------------------------------------------------


def _pace(one: Ranked) -> float:
    """Seconds for an example: as compiled, else as estimated."""
    seconds = one.estimate.seconds.expected if one.verdict is None else one.verdict.seconds
    return seconds / one.candidate.batch_size


def _order(one: Ranked, config: Config, correction: float) -> tuple[bool, float, int, float]:
    """How candidates are sorted: those that fit first, by pace, alike ones by their changes."""
    memory = one.estimate.memory.total * correction
    fits = memory <= one.estimate.limit
    if not fits:
        return True, memory, 0, 0.0
    pace = _pace(one)
    return (
        False,
        round(math.log(pace) / math.log(1 + ALIKE)),
        len(_changes(one.candidate, config)),
        pace,
    )


def _changes(candidate: Candidate, config: Config) -> dict[str, Any]:
    """The keys of a candidate that differ from a config's."""
    sizes = axis_sizes(config.mesh, math.prod(candidate.mesh.values()))
    held = {
        **{f"mesh.{axis}": size for axis, size in sizes.items()},
        "data.batch_size": config.data.batch_size,
        "optim.accumulate": config.optim.accumulate,
        **{f"model.{key}": value for key, value in config.model.options.items()},
    }
    return {key: value for key, value in candidate.assignments().items() if held[key] != value}


def _compiled(ranked: Sequence[Ranked], config: Config, compile: Compile) -> list[Ranked]:
    """Compiles candidates until enough of them fit; the others' memory is corrected meanwhile."""
    corrections: dict[tuple[tuple[str, Any], ...], float] = {}
    left = list(ranked)
    tried: list[Ranked] = []
    plain = config.to_dict()

    def correction(one: Ranked) -> float:
        return corrections.get(one.candidate.way, max(corrections.values(), default=1.0))

    fitting = 0
    while left and len(tried) < MOST_COMPILED and fitting < COMPILED:
        left.sort(key=lambda one: _order(one, config, correction(one)))
        one = left.pop(0)
        made = to_dict(override(plain, one.candidate.assignments()))
        verdict = next(iter(compile([made])))
        tried.append(Ranked(one.candidate, one.estimate, verdict))
        if verdict.peak:
            corrections[one.candidate.way] = verdict.peak / one.estimate.memory.total
        fitting += verdict.fits
    return tried


def _nothing(tried: Sequence[Ranked], chip: Chip, chips: int) -> str:
    def peak(one: Ranked) -> float:
        said = one.verdict is not None and one.verdict.peak
        return one.verdict.peak if one.verdict is not None and said else one.estimate.memory.total

    least = min(tried, key=peak)
    wrong = {one.verdict.said for one in tried if one.verdict is not None and one.verdict.said}
    more = f" {' '.join(sorted(wrong))}" if wrong else ""
    lines = " ".join(f"{key}={value}" for key, value in least.candidate.assignments().items())
    return (
        f"--search: nothing fits {chips} chips of {chip.name}: the least found takes "
        f"{peak(least) / 2**30:.1f} GiB of {chip.hbm_bytes / 2**30:.1f} on each ({lines}). Try "
        f"more chips, a smaller data.batch_size or a smaller model.{more}"
    )
