"""The coordinator of worker processes: who does what, in which execution mode, and who has died.

What trains many models submits tasks and receives what they came to. A population is given to a
worker that has compiled its structure, if one has; a task whose worker dies is given to another; a
failure of the environment is never a result, but ends the call with what happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from jdlopt import memory
from jdlopt.errors import ConfigError, UserError
from jdlopt.executor.messages import (
    DIVERGED,
    ENVIRONMENT,
    WRONG_INPUT,
    Answer,
    CheckStudy,
    Failed,
    PopulationTrained,
    Progress,
    Ready,
    Request,
    RunTrained,
    Stop,
    StudyChecked,
    TrainPopulation,
    TrainRun,
)
from jdlopt.executor.processes import Ended, Workers

ATTEMPTS = 3
"""How often a task is tried, if its worker dies."""
DEATHS = 6
"""How many workers may die in a row, none of them having done anything."""
WORTH_TIMING = 20.0
"""Modes are timed where a structure's work is so many times what compiling one took."""
PATIENCE_SECONDS = 60.0
"""How long an interruption waits for the workers to save."""
KEPT = "What was finished is kept; the same command goes on from there."


@dataclass
class Task:
    """Something that a worker trains.

    Attributes:
      number: of the task.
      request: what the worker is asked.
      structure: what its trials have in common, as text.
      order: tasks of a lower one come first, unless any order will do.
      attempts: how often it was dispatched.
    """

    number: int
    request: TrainPopulation | TrainRun
    structure: str
    order: int = 0
    attempts: int = 0


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
    """

    execution_mode: str | None = None
    compile_seconds: float = 0.0
    trial_seconds: float = 0.0
    reached: dict[int, list[float]] = field(default_factory=dict)


@dataclass
class Spent:
    """Seconds that workers spent, added up over all of them."""

    training: float = 0.0
    compiling: float = 0.0


@dataclass
class _Worker:
    """What a worker does now, what it has compiled, and what it compiles now."""

    task: Task | None = None
    compiled: set[str] = field(default_factory=set)
    compiling: str | None = None


class Processes(Protocol):
    """Where workers live: `jdlopt.executor.processes.Workers`."""

    def start(self) -> int:
        """Starts a worker; returns its index."""

    def send(self, index: int, message: Request) -> None:
        """Sends a worker a request."""

    def receive(self, seconds: float) -> tuple[int, Answer | Ended] | None:
        """Returns the next answer and whose it is."""

    def close(self) -> None:
        """Ends all workers."""


class Executor:
    """Worker processes, the tasks that wait for them, and what is known of structures.

    Args:
      processes: where workers live.
      count: how many there shall be.
      deadline: a moment of `time.perf_counter`; see `late`.
      any_order: whether a task may be dispatched before one of a lower order.
    """

    def __init__(
        self,
        processes: Processes,
        count: int,
        deadline: float | None = None,
        any_order: bool = True,
    ):
        self.count, self.deadline, self.any_order = count, deadline, any_order
        self.spent, self.platform = Spent(), ""
        self.devices: list[str] = []
        self._processes = processes
        self._workers: dict[int, _Worker] = {}
        self._queue: list[Task] = []
        self._structures: dict[str, Structure] = {}
        self._number = self._deaths = 0
        self._stopped = -1
        self._fill()

    @classmethod
    def start(cls, program: str, count: int, deadline: float | None = None) -> Executor:
        """Returns one whose processes, just started, answer by a module's `start(link)`."""
        return cls(Workers(program, one_core=count > 1), count, deadline)

    def _fill(self) -> None:
        while len(self._workers) < self.count:
            self._workers[self._processes.start()] = _Worker()

    # --- what is known ----------------------------------------------------------------------------

    @property
    def running(self) -> list[Task]:
        """The tasks that workers are at."""
        return [worker.task for worker in self._workers.values() if worker.task is not None]

    @property
    def busy(self) -> bool:
        """Whether tasks run or wait."""
        return bool(self._queue or self.running)

    @property
    def waiting(self) -> bool:
        """Whether tasks wait for a worker."""
        return bool(self._queue)

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.perf_counter() > self.deadline

    def wait_ready(self) -> str:
        """Returns the platform that workers train on, once the first has started."""
        while not self.platform:
            self._fill()
            received = self._processes.receive(1.0)
            if received is not None:
                self._take(*received)
        return self.platform

    # --- work -------------------------------------------------------------------------------------

    def submit(
        self, request: TrainPopulation | TrainRun, structure: str = "", order: int = 0
    ) -> Task:
        """Queues a request.

        Args:
          request: for a population or a run.
          structure: what the trials of a population have in common, as text.
          order: among what waits.
        """
        self._number += 1
        request = replace(request, task=self._number)
        task = Task(self._number, request, structure or f"run {self._number}", order)
        self._queue.append(task)
        return task

    def check(self, request: CheckStudy) -> StudyChecked:
        """Has all workers check a study, which opens its data; the first answer counts.

        Raises:
          ConfigError, UserError: the input is wrong, or a worker could not be started.
        """
        for index in self._workers:
            self._processes.send(index, request)
        while True:
            received = self._processes.receive(1.0)
            if received is None:
                continue
            message = received[1]
            if isinstance(message, Ended):
                raise UserError(f"a worker process {message} before it had done anything.")
            if isinstance(message, StudyChecked):
                return message
            if isinstance(message, Failed):
                raise _error_of(message)
            self._take(*received)

    def dispatch(self) -> bool:
        """Gives every idle worker a task, if there is one for it; says whether it gave any."""
        if self._queue:
            self._fill()
        before = len(self._queue)
        for index, worker in self._workers.items():
            task = self._pick(worker) if worker.task is None and self._queue else None
            if task is None:
                continue
            self._queue.remove(task)
            task.attempts += 1
            worker.task = task
            if task.structure not in worker.compiled:
                worker.compiling = task.structure
                worker.compiled.add(task.structure)
            self._processes.send(index, self._request(task))
        return len(self._queue) < before

    def _request(self, task: Task) -> TrainPopulation | TrainRun:
        """A task's request, with what is known of its structure by now."""
        if isinstance(task.request, TrainRun):
            return task.request
        known = self._structures.get(task.structure, Structure())
        mode = task.request.execution_mode or known.execution_mode
        waiting = sum(_trials(one) for one in self._queue if one.structure == task.structure)
        worth = waiting * known.trial_seconds > WORTH_TIMING * known.compile_seconds > 0
        return replace(
            task.request,
            execution_mode=mode,
            calibrate=mode is None and worth,
            history=known.reached,
        )

    def _pick(self, worker: _Worker) -> Task | None:
        """Returns the next task: in order, but of a structure that the worker has compiled.

        While another worker compiles a structure, with all cores, this one waits to load what that
        keeps; or takes up another structure.
        """
        others = [one for one in self._workers.values() if one is not worker]
        compiling = {one.compiling for one in others} if _programs_are_kept() else set()
        first = min(task.order for task in self._queue)
        open_ = [
            task
            for task in self._queue
            if (task.order == first or self.any_order)
            and (task.structure in worker.compiled or task.structure not in compiling)
        ]
        own = [task for task in open_ if task.structure in worker.compiled]
        taken = set[str]().union(*(one.compiled for one in others))
        fresh = [task for task in open_ if task.structure not in taken]
        return next(iter(own or fresh or open_), None)

    def receive(self, seconds: float) -> Received | None:
        """Dispatches what waits, then returns what becomes known next.

        A worker that has finished is idle until the next `dispatch`: so it can be decided what is
        trained next from what was received, or not waited for that.

        Args:
          seconds: to wait at most.

        Returns:
          A task and what is known of it; None if nothing is.

        Raises:
          UserError: the environment failed: what, and what to do.
          RuntimeError: a defect, with the worker's traceback.
        """
        self.dispatch()
        received = self._processes.receive(seconds)
        return None if received is None else self._take(*received)

    def _take(self, index: int, message: Answer | Ended) -> Received | None:
        worker = self._workers.get(index)
        if worker is None:
            return None
        if isinstance(message, Ended):
            return self._lost(index, worker, message)
        if isinstance(message, Ready):
            self.platform, self.devices = message.platform, message.devices
            return None
        task = worker.task
        if task is None or message.task != task.number or isinstance(message, StudyChecked):
            return None  # another worker's answer to a check
        worker.compiling, self._deaths = None, 0  # others can load what it has compiled
        if isinstance(message, Progress):
            return Received(task, message)
        worker.task = None
        if isinstance(message, Failed) and message.kind not in (WRONG_INPUT, DIVERGED):
            raise _error_of(message)
        if isinstance(message, PopulationTrained):
            self._learn(task, message)
        return Received(task, message)

    def _learn(self, task: Task, result: PopulationTrained) -> None:
        self.spent.training += result.train_seconds
        self.spent.compiling += result.compile_seconds
        known = self._structures.setdefault(task.structure, Structure())
        known.compile_seconds = max(known.compile_seconds, result.compile_seconds)
        known.trial_seconds = result.train_seconds / max(1, _trials(task))
        if result.chosen == "measured":
            known.execution_mode = result.execution_mode
        for step, values in result.reached.items():
            known.reached.setdefault(step, []).extend(values)

    def _lost(self, index: int, worker: _Worker, how: Ended) -> Received | None:
        """A worker died: its task waits for another, a few times."""
        del self._workers[index]
        task = worker.task
        self._deaths += 1
        if self._deaths > DEATHS:
            raise UserError(
                f"{self._deaths} workers in a row ended before they had trained anything; the last "
                f"{how}. Is memory short? Try fewer --workers. {KEPT}"
            )
        if task is None:
            return None
        if task.number <= self._stopped:
            return Received(task, GivenBack())
        if task.attempts >= ATTEMPTS:
            raise UserError(
                f"a worker process {how} while it trained, {ATTEMPTS} times for the same trials. "
                f"Is memory short? Try fewer --workers or a smaller --width. {KEPT}"
            )
        self._queue.insert(0, task)
        return None

    # --- the end ----------------------------------------------------------------------------------

    def stop(self) -> list[Task]:
        """Has what runs end at its next evaluation; returns what waited, which is not run.

        What is submitted afterwards runs.
        """
        if self._stopped == self._number:
            return []
        waited, self._queue = self._queue, []
        self._stopped = self._number
        for index in self._workers:
            self._processes.send(index, Stop(self._stopped))
        return waited

    def drain(self, patience: float = PATIENCE_SECONDS) -> Iterator[Received]:
        """Yields what becomes known of the tasks that run, until none does, or for so long."""
        until = time.perf_counter() + patience
        while self.busy and time.perf_counter() < until:
            received = self.receive(0.5)
            if received is not None:
                yield received

    def close(self) -> None:
        """Ends all workers."""
        self._processes.close()
        self._workers.clear()


def _trials(task: Task) -> int:
    return len(task.request.trials) if isinstance(task.request, TrainPopulation) else 1


def _programs_are_kept() -> bool:
    """Says whether a program that one worker has compiled can be loaded by the others."""
    return os.environ.get("JDLOPT_KEEP_PROGRAMS") != "0"


def _error_of(failure: Failed) -> Exception:
    """Returns the exception that a failure is to its coordinator's caller."""
    if failure.kind == ENVIRONMENT:
        text = failure.message
        if memory.is_exhausted(text):
            text += f" {memory.LESS_MEMORY}"
        return UserError(text if "same command" in text else f"{text} {KEPT}")
    if failure.kind == WRONG_INPUT:
        return ConfigError(failure.message)
    return RuntimeError(failure.traceback or failure.message)
