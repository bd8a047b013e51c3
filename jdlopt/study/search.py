"""A search as one coordinator sees it: what was asked, what is known, what waits to be trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt.study.options import Options
from jdlopt.study.space import Space
from jdlopt.study.workers import Workers

STUDY, BEST, TRIALS, POPULATIONS = "study.json", "best_config.json", "trials", "populations"


class StudyResult(NamedTuple):
    """What a study came to: the content of ``study.json``, and where it lies."""

    record: dict[str, Any]
    workdir: Path


class StudyProgress(NamedTuple):
    """What a progress display shows.

    Attributes:
      done, running, pruned, infeasible: trials.
      trials: how many there will be, if that is known.
      best: the best trial's number and value, or None.
      improved: whether it is new.
      seconds_left: about how long it will take, if that is known.
    """

    done: int
    running: int
    pruned: int
    infeasible: int
    trials: int | None
    best: tuple[int, float] | None
    improved: bool
    seconds_left: float | None


@dataclass
class Task:
    """A population that a worker trains: trials of one group.

    Attributes:
      number: of the task.
      group: what its trials have in common, as text.
      generation: the draw that its trials are from.
      order: what the worker is told.
      trials: the numbers of its trials.
      attempts: how often it was handed out.
    """

    number: int
    group: str
    generation: int
    order: dict[str, Any]
    trials: list[int]
    attempts: int = 0


@dataclass
class Generation:
    """Trials that were drawn at the same time, and the records of those that ended."""

    trials: set[int]
    records: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Spent:
    """Seconds that workers spent, added up over all of them."""

    training: float = 0.0
    compiling: float = 0.0


@dataclass
class Search:
    """One coordinator's view of a study.

    Attributes:
      config: the base experiment, as workers are told it.
      space: what is searched; ``traced`` names its keys that need no program of their own.
      workdir, options: as `tune` was given them.
      objectives: name and direction of each.
      facts: what a worker found out about the config: ``resolved``, with all its defaults; the
        metric that members ``monitor``; seed, versions, devices.
      book: the study in its storage.
      mirror: what the sampler knows.
      grid: all points, where the sampler is the grid.
      workers: the processes.
      started, deadline: moments of `time.perf_counter`.
      on_progress: called when something is known anew.
      points: every known trial's params; finished: the records of those that ended.
      queue: populations that wait for a worker.
      generations: by number; ``drawn`` of them exist, the sampler was told of ``told``.
      tasks: how many were made.
      structures: what is known of each structure, by fingerprint; ``formulations`` by group.
      reached: by group, what trials had reached at each rung.
      spent: by the workers.
      best_told: the best value that was shown.
      found: how many trials were finished when the call began.
      deaths: workers that died since one last did something.
      ended: nothing more is drawn or handed out, for ``end_reason``.
      interrupted: what is in the workers' hands is kept for a later call.
    """

    config: dict[str, Any]
    space: Space
    traced: set[str]
    workdir: Path
    options: Options
    objectives: list[dict[str, str]]
    facts: dict[str, Any]
    book: Any
    mirror: Any
    grid: list[dict[str, Any]] | None
    workers: Workers
    started: float
    deadline: float | None
    on_progress: Callable[[StudyProgress], None] | None
    points: dict[int, dict[str, Any]] = field(default_factory=dict)
    finished: dict[int, dict[str, Any]] = field(default_factory=dict)
    queue: list[Task] = field(default_factory=list)
    generations: dict[int, Generation] = field(default_factory=dict)
    drawn: int = 0
    told: int = 0
    tasks: int = 0
    structures: dict[str, dict[str, Any]] = field(default_factory=dict)
    formulations: dict[str, str] = field(default_factory=dict)
    reached: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    best_told: float | None = None
    found: int = 0
    deaths: int = 0
    ended: bool = False
    end_reason: str | None = None
    interrupted: bool = False


def limit(search: Search) -> int | None:
    """Returns how many trials the study will have; None if only time or a goal ends it."""
    asked = search.options.trials
    if search.grid is None:
        return asked
    return len(search.grid) if asked is None else min(asked, len(search.grid))


def is_late(search: Search) -> bool:
    """Says whether the time budget is spent."""
    return search.deadline is not None and time.perf_counter() > search.deadline


def training(search: Search) -> set[int]:
    """Returns the trials that are in the workers' hands."""
    tasks = [worker.task for worker in search.workers.all.values() if worker.task is not None]
    return {number for task in tasks for number in task.trials}


def keep(search: Search, task: Task, number: int, record: dict[str, Any]) -> None:
    """Writes down what a trial came to. If another coordinator was first, its word counts."""
    kept = search.book.finish(number, record, record["values"])
    search.finished[number] = kept
    search.generations[task.generation].records[number] = kept


def release(search: Search, numbers: list[int]) -> None:
    """Gives back trials that were not trained: whoever goes on with the study will train them."""
    for number in numbers:
        search.book.release(number)
        search.points.pop(number, None)
