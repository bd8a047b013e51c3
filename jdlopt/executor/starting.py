"""Starting workers where they are asked for."""

from __future__ import annotations

from pathlib import Path

from jdlopt.executor import on_slurm
from jdlopt.executor.on_ray import RayWorkers
from jdlopt.executor.place import HERE, RAY, SLURM, Place
from jdlopt.executor.processes import Processes, Workers, default_workers
from jdlopt.executor.shared import to_be_seen


def start_processes(
    program: str, count: int | None = None, text: str | None = None, workdir: Path | None = None
) -> tuple[Processes, int]:
    """Returns where workers live, none of them started yet, and how many there shall be.

    Args:
      program: the module that answers their requests.
      count: asked for, or None for as many as there is room for.
      text: what ``--workers-on`` says.
      workdir: where results are kept, which all machines must see.

    Raises:
      UserError: they can't run there.
    """
    place = Place.read(text)
    own = {} if workdir is None or place.kind == HERE else to_be_seen(workdir)
    if place.kind == RAY:
        actors = RayWorkers(program, place, grows=count is None, own=own)
        return actors, count or actors.slots()
    if place.kind == SLURM:
        steps = Workers(program, place.one_core, on_slurm.launcher(place), own)
        return steps, count or on_slurm.room(place)
    count = count or default_workers()
    return Workers(program, one_core=count > 1), count
