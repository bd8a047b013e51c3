"""What an executor's tasks are, and what is known of them and of their structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jdlopt.executor.messages import (
    Failed,
    PopulationTrained,
    Progress,
    RunTrained,
    TrainPopulation,
    TrainRun,
)
from jdlopt.executor.shortage import WHOLE, Share


@dataclass
class Task:
    """Something that a worker trains.

    Attributes:
      number: of the task.
      request: what the worker is asked.
      structure: what its trials have in common, as text.
      order: tasks of a lower one come first, unless any order will do.
      attempts: how often it was dispatched.
      begun: whether a worker has trained some of it.
      share: how much of it is done at a time, as it was dispatched.
      refused: why machines could not do it, by their names.
    """

    number: int
    request: TrainPopulation | TrainRun
    structure: str
    order: int = 0
    attempts: int = 0
    begun: bool = False
    share: Share = WHOLE
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenBack:
    """A task was not finished and will not be: its worker died after it was stopped."""


class Received(NamedTuple):
    """What became known of a task."""

    task: Task
    message: Progress | PopulationTrained | RunTrained | Failed | GivenBack


@dataclass
class Structure:
    """What is known of populations of one structure.

    Attributes:
      execution_mode: the fastest, once it was measured.
      compile_seconds: of its programs; 0 until they were compiled here.
      trial_seconds: of training one trial.
      reached: what trials had reached, by the step of a rung.
      share: how much of a population is trained at a time.
      unfit: why none of it is trained any more; None where it fits in memory.
    """

    execution_mode: str | None = None
    compile_seconds: float = 0.0
    trial_seconds: float = 0.0
    reached: dict[int, list[float]] = field(default_factory=dict)
    share: Share = WHOLE
    unfit: str | None = None


@dataclass
class Spent:
    """Seconds that workers spent, added up over all of them."""

    training: float = 0.0
    compiling: float = 0.0
