"""The layout of a config's training that suits a machine, found; and a config's own, estimated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from jdlopt.config import AnyConfig
from jdlopt.errors import UserError
from jdlopt.mesh import axis_sizes
from jdlopt.plan.analytic import Estimate, estimated
from jdlopt.plan.experiments import workload_of
from jdlopt.plan.plan import plans
from jdlopt.plan.record import Plan
from jdlopt.plan.search import Found, Verdict, search
from jdlopt.plan.topology import Topology, parse
from jdlopt.train.experiment import Experiment


def find(config: AnyConfig, topology: str, *, slices: int = 1, same_batch: bool = False) -> Found:
    """Returns the fastest layout of a config's training that fits a machine.

    Candidates are estimated, and the best compiled by a process of its own; for GPUs the best
    estimate is taken.

    Args:
      config: an experiment. Its data are opened.
      topology: a kind of chip and the size of a slice, such as ``v5e:4x4`` or ``H100:8``.
      slices: how many such slices.
      same_batch: whether ``data.batch_size`` stays as it is.

    Raises:
      ConfigError, DataError: as for `jdlopt.fit`.
      UserError: the machine is unknown or can't be compiled for here, or nothing fits.
    """
    machine = parse(topology, slices)
    experiment = Experiment.build(config, num_devices=machine.chips)
    return search(
        experiment,
        machine.chip,
        machine.chips,
        slices=slices,
        compile=partial(compiled, machine) if machine.chip.is_tpu else None,
        same_batch=same_batch,
    )


def estimate_of(config: AnyConfig, topology: str, *, slices: int = 1) -> Estimate:
    """Returns what a config's training takes on a machine, estimated and not compiled.

    Args:
      config, topology, slices: as for `find`.
    """
    machine = parse(topology, slices)
    experiment = Experiment.build(config, num_devices=machine.chips)
    return estimated(
        workload_of(experiment),
        machine.chip,
        axis_sizes(experiment.config.mesh, machine.chips),
        experiment.config.data.batch_size,
        accumulate=experiment.config.optim.accumulate,
        slices=slices,
    )


def compiled(machine: Topology, configs: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    """Yields what compiling each config for a machine says."""
    for found in plans(configs, machine):
        yield verdict_of(found)


def verdict_of(found: Plan | UserError) -> Verdict:
    """Returns what a search needs of a plan, or of what is wrong with one.

    What training and evaluation take is what they have and what lies beside it; the larger counts.
    """
    if isinstance(found, UserError):
        return Verdict(fits=False, peak=0.0, seconds=float("inf"), said=str(found))
    programs = [one for one in (found.training, found.evaluation) if one is not None]
    peak = float(max(one.peak + one.beside for one in programs))
    fits = found.fits and found.step_seconds is not None
    seconds = found.step_seconds.low if found.step_seconds is not None else float("inf")
    return Verdict(fits, peak, seconds if fits else float("inf"), plan=found)
