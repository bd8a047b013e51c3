"""What a worker does next, and how it is asked for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from jdlopt.executor.messages import TrainPopulation, TrainRun
from jdlopt.executor.task import Structure, Task

WORTH_TIMING = 20.0
"""Modes are timed where a structure's work is so many times what compiling one took."""


@dataclass
class Worker:
    """What a coordinator knows of one of its workers.

    Attributes:
      task: that it is at.
      host: its machine, by its name, once it is ready; until then one on another machine may wait
        for a place there.
      compiled: the structures that it has compiled, and loads no more.
      compiling: the one that it compiles now.
    """

    task: Task | None = None
    host: str | None = None
    compiled: set[str] = field(default_factory=set)
    compiling: str | None = None


def next_task(worker: Worker, others: Iterable[Worker], waiting: Sequence[Task]) -> Task | None:
    """Returns the next task: in order, but of a structure that the worker has compiled.

    While another worker compiles a structure, with all cores, this one waits to load what that
    keeps; or takes up another structure.

    Args:
      worker: who is to do it.
      others: all others.
      waiting: what may be done now.
    """
    others = list(others)
    compiling = {one.compiling for one in others} if _programs_are_kept() else set()
    open_ = [t for t in waiting if t.structure in worker.compiled or t.structure not in compiling]
    own = [task for task in open_ if task.structure in worker.compiled]
    taken = set[str]().union(*(one.compiled for one in others))
    fresh = [task for task in open_ if task.structure not in taken]
    return next(iter(own or fresh or open_), None)


def _programs_are_kept() -> bool:
    """Says whether a program that one worker has compiled can be loaded by the others."""
    return os.environ.get("JDLOPT_KEEP_PROGRAMS") != "0"


def request_of(task: Task, known: Structure, queue: Iterable[Task]) -> TrainPopulation | TrainRun:
    """Returns a task's request, with what is known of its structure by now.

    Args:
      task: to be done.
      known: of its structure.
      queue: what waits besides.
    """
    if isinstance(task.request, TrainRun):
        return task.request
    mode, at_once = task.request.execution_mode or known.execution_mode, task.share.at_once
    waiting = sum(trials_in(one) for one in queue if one.structure == task.structure)
    worth = waiting * known.trial_seconds > WORTH_TIMING * known.compile_seconds > 0
    return replace(
        task.request,
        execution_mode=mode,
        calibrate=mode is None and worth and at_once is None,
        history=known.reached,
        at_once=at_once,
    )


def trials_in(task: Task) -> int:
    """Returns how many trials a task trains; a run is one."""
    return len(task.request.trials) if isinstance(task.request, TrainPopulation) else 1
