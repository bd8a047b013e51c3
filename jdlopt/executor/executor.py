"""The coordinator of worker processes: who does what, in which execution mode, and who has died.

What trains many models submits tasks and receives what they came to. A population is given to a
worker that has compiled its structure, if one has; a task whose worker dies is given to another; a
failure of the environment is never a result, but ends the call with what happened. What does not
fit in memory is tried in smaller populations, then alone, and left out only then.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from jdlopt import memory
from jdlopt.errors import ConfigError, UserError
from jdlopt.executor.messages import (
    DIVERGED,
    ENVIRONMENT,
    NO_MEMORY,
    STARTING,
    WRONG_INPUT,
    Answer,
    CheckStudy,
    Failed,
    PopulationTrained,
    Progress,
    Ready,
    Stop,
    StudyChecked,
    TrainPopulation,
    TrainRun,
)
from jdlopt.executor.processes import Ended, Processes, Workers
from jdlopt.executor.shortage import DID_NOT_FIT, smaller, tighter
from jdlopt.executor.task import GivenBack, Received, Spent, Structure, Task

ATTEMPTS = 3
"""How often a task is tried as it is, if its worker dies, or if it had been trained for a while."""
DEATHS = 6
"""How many workers may die in a row, none of them having started."""
WORTH_TIMING = 20.0
"""Modes are timed where a structure's work is so many times what compiling one took."""
PATIENCE_SECONDS = 60.0
"""How long an interruption waits for the workers to save."""
KEPT = "What was finished is kept; the same command goes on from there."


class ShortageWarning(UserWarning):
    """Something is done with less, since memory is short."""


@dataclass
class _Worker:
    """What a worker does now, what it has compiled, and what it compiles now."""

    task: Task | None = None
    compiled: set[str] = field(default_factory=set)
    compiling: str | None = None


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
    def _alone(self) -> bool:
        """Whether what runs has the machine for itself."""
        return any(task.share.alone for task in self.running)

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
            if received is None or received[0] not in self._workers:
                continue  # or one that could not start, and has ended
            message = received[1]
            if isinstance(message, Ended):
                raise UserError(f"a worker process {message} before it had done anything.")
            if isinstance(message, StudyChecked):
                return message
            if isinstance(message, Failed) and message.task != STARTING:
                raise _error_of(message)
            self._take(*received)

    def dispatch(self) -> bool:
        """Gives every idle worker a task, if there is one for it; says whether it gave any."""
        if not self._queue or self._alone:
            return False
        self._fill()
        before = len(self._queue)
        for index, worker in list(self._workers.items()):
            task = self._pick(worker) if worker.task is None and self._queue else None
            if task is None:
                continue
            task.share = self._known(task).share
            if task.share.alone:
                index, worker = self._only()
            self._queue.remove(task)
            task.attempts += 1
            worker.task = task
            if task.structure not in worker.compiled:
                worker.compiling = task.structure
                worker.compiled.add(task.structure)
            self._processes.send(index, self._request(task))
            if task.share.alone:
                break
        return len(self._queue) < before

    def _only(self) -> tuple[int, _Worker]:
        """Ends all workers but one that has done nothing yet: the others' memory is free then."""
        fresh = max((n for n, one in self._workers.items() if not one.compiled), default=None)
        for index in [n for n in self._workers if n != fresh]:
            self._end(index)
        index = self._processes.start() if fresh is None else fresh
        return index, self._workers.setdefault(index, _Worker())

    def _end(self, index: int) -> None:
        self._processes.end(index)
        del self._workers[index]

    def _known(self, task: Task) -> Structure:
        return self._structures.setdefault(task.structure, Structure())

    def _request(self, task: Task) -> TrainPopulation | TrainRun:
        """A task's request, with what is known of its structure by now."""
        if isinstance(task.request, TrainRun):
            return task.request
        known, at_once = self._known(task), task.share.at_once
        mode = task.request.execution_mode or known.execution_mode
        waiting = sum(_trials(one) for one in self._queue if one.structure == task.structure)
        worth = waiting * known.trial_seconds > WORTH_TIMING * known.compile_seconds > 0
        return replace(
            task.request,
            execution_mode=mode,
            calibrate=mode is None and worth and at_once is None,
            history=known.reached,
            at_once=at_once,
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
            and not (self.running and self._known(task).share.alone)
            and self._known(task).unfit is None
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
        left_out = self._left_out()
        if left_out is not None:
            return left_out
        self.dispatch()
        received = self._processes.receive(seconds)
        return None if received is None else self._take(*received)

    def _left_out(self) -> Received | None:
        """Takes a task out of the queue whose structure does not fit in memory."""
        for task in self._queue:
            reason = self._known(task).unfit
            if reason is not None:
                self._queue.remove(task)
                return Received(task, Failed(task.number, NO_MEMORY, reason))
        return None

    def _take(self, index: int, message: Answer | Ended) -> Received | None:
        worker = self._workers.get(index)
        if worker is None:
            return None
        if isinstance(message, Ended):
            return self._lost(index, worker, message)
        if isinstance(message, Ready):
            self.platform, self.devices = message.platform, message.devices
            self._deaths = 0
            return None
        if isinstance(message, Failed) and message.task == STARTING:
            self._drop(index, message)
            return None
        task = worker.task
        if task is None or message.task != task.number or isinstance(message, StudyChecked):
            return None  # another worker's answer to a check
        worker.compiling, self._deaths = None, 0  # others can load what it has compiled
        if isinstance(message, Progress):
            task.begun = True
            return Received(task, message)
        worker.task = None
        if isinstance(message, Failed) and message.kind == NO_MEMORY:
            self._end(index)  # what it has compiled and opened takes memory as well
            return self._short(task, message.message)
        if isinstance(message, Failed) and message.kind not in (WRONG_INPUT, DIVERGED):
            raise _error_of(message)
        if isinstance(message, PopulationTrained):
            self._learn(task, message)
        return Received(task, message)

    def _learn(self, task: Task, result: PopulationTrained) -> None:
        self.spent.training += result.train_seconds
        self.spent.compiling += result.compile_seconds
        known = self._known(task)
        known.compile_seconds = max(known.compile_seconds, result.compile_seconds)
        known.trial_seconds = result.train_seconds / max(1, _trials(task))
        if result.chosen == "measured":
            known.execution_mode = result.execution_mode
        for step, values in result.reached.items():
            known.reached.setdefault(step, []).extend(values)

    def _drop(self, index: int, failure: Failed) -> None:
        """A worker could not start: where memory is short, fewer do the work."""
        if failure.kind != NO_MEMORY or self.count == 1:
            raise _error_of(failure)
        del self._workers[index]
        self.count -= 1
        warnings.warn(
            f"a worker could not be started ({failure.message:.200}); going on with {self.count}.",
            ShortageWarning,
            stacklevel=2,
        )

    def _short(self, task: Task, reason: str) -> Received | None:
        """There was too little memory for a task: less of it is tried at a time, or it is left out.

        What had been trained for a while did fit, before something else took the memory.
        """
        if task.number <= self._stopped:
            return Received(task, GivenBack())
        if task.begun and task.attempts < ATTEMPTS:
            self._queue.insert(0, task)
            return None
        known, share = self._known(task), smaller(task.share, _trials(task))
        if share is None:
            known.unfit = f"{DID_NOT_FIT}: {reason}"
            return Received(task, Failed(task.number, NO_MEMORY, known.unfit))
        known.share = tighter(known.share, share)
        task.begun = False
        self._queue.insert(0, task)
        return None

    def _lost(self, index: int, worker: _Worker, how: Ended) -> Received | None:
        """A worker died: its task waits for another, the next time as where memory is short."""
        del self._workers[index]
        task = worker.task
        self._deaths += 1
        if self._deaths > DEATHS:
            raise UserError(
                f"{self._deaths} workers in a row ended before they had started; the last {how}. "
                f"Is memory short? Try fewer --workers. {KEPT}"
            )
        if task is None:
            return None
        if task.number <= self._stopped:
            return Received(task, GivenBack())
        if task.attempts < ATTEMPTS:
            self._queue.insert(0, task)
            return None
        if how.said is not None:
            raise UserError(f"a worker process {how}, {ATTEMPTS} times for the same trials. {KEPT}")
        return self._short(task, f"its worker process {how}")

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
    if failure.kind in (ENVIRONMENT, NO_MEMORY):
        text = failure.message
        if failure.kind == NO_MEMORY:
            text = f"{text.rstrip('.')}. {memory.LESS_MEMORY}"
        return UserError(text if "same command" in text else f"{text} {KEPT}")
    if failure.kind == WRONG_INPUT:
        return ConfigError(failure.message)
    return RuntimeError(failure.traceback or failure.message)
