"""The coordinator of worker processes: who does what, in which execution mode, and who has died.

What trains many models submits tasks and receives what they came to. A population is given to a
worker that has compiled its structure, if one has; a task whose worker dies is given to another; a
failure of the environment is never a result, but ends the call with what happened. What does not
fit in memory is tried in smaller populations, then alone, and left out only then.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jdlopt.errors import UserError
from jdlopt.executor.choosing import Worker, next_task, request_of, trials_in
from jdlopt.executor.failures import KEPT, error_of
from jdlopt.executor.machines import Machines
from jdlopt.executor.messages import (
    DIVERGED,
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
from jdlopt.executor.processes import Ended, Processes
from jdlopt.executor.shortage import DID_NOT_FIT, smaller, tighter
from jdlopt.executor.starting import start_processes
from jdlopt.executor.task import GivenBack, Received, Spent, Structure, Task

ATTEMPTS = 3
"""How often a task is tried as it is, if its worker dies, or if it had been trained for a while."""
DEATHS = 6
"""How many workers may die in a row, none of them having started."""
PATIENCE_SECONDS = 60.0
"""How long an interruption waits for the workers to save."""


class ShortageWarning(UserWarning):
    """Something is done with less, since memory is short."""


class Executor:
    """Worker processes, the tasks that wait for them, and what is known of structures.

    Args:
      processes: where workers live.
      count: how many there shall be; more where there is room for more.
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
        self._workers: dict[int, Worker] = {}
        self._queue: list[Task] = []
        self._structures: dict[str, Structure] = {}
        self._machines = Machines()
        self._number = self._deaths = self._dropped = 0
        self._stopped = -1
        self._fill()

    @classmethod
    def start(
        cls,
        program: str,
        count: int | None = None,
        deadline: float | None = None,
        place: str | None = None,
        workdir: Path | None = None,
    ) -> Executor:
        """Returns one whose processes, just started, answer by a module's `start(link)`.

        Args:
          program: the module.
          count: of processes; by default as many as the place has room for.
          deadline: see above.
          place: where they run, as `jdlopt.executor.place.Place.read` reads it.
          workdir: where results are kept, which all machines must see.

        Raises:
          UserError: they can't run there.
        """
        processes, count = start_processes(program, count, place, workdir)
        return cls(processes, count, deadline)

    def _fill(self) -> None:
        self.count = max(self.count, self._processes.slots() - self._dropped)
        while len(self._workers) < self.count:
            self._workers[self._processes.start()] = Worker()

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
    def _hosts(self) -> set[str]:
        """The machines that workers are ready on."""
        return {one.host for one in self._workers.values() if one.host is not None}

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
        asked: set[int] = set()
        while True:
            self._fill()
            for index in [one for one in self._workers if one not in asked]:
                asked.add(index)
                self._processes.send(index, request)
            received = self._processes.receive(1.0)
            if received is None or received[0] not in self._workers:
                continue  # or one that could not start, and has ended
            message = received[1]
            if isinstance(message, Ended) and message.lost is None:
                raise UserError(f"a worker process {message} before it had done anything.")
            if isinstance(message, StudyChecked):
                return message
            if isinstance(message, Failed) and message.task != STARTING:
                raise error_of(message, self._processes.elsewhere)
            self._take(*received)

    def dispatch(self) -> bool:
        """Gives every idle worker a task, if there is one for it; says whether it gave any."""
        if not self._queue or self._alone:
            return False
        self._fill()
        before = len(self._queue)
        for index, worker in list(self._workers.items()):
            free = worker.task is None and self._has_place(worker)
            task = self._pick(worker) if free and self._queue else None
            if task is None:
                continue
            task.share = self._known(task).share
            if task.share.alone:
                index, worker = self._only(task)
            self._queue.remove(task)
            task.attempts += 1
            worker.task = task
            if task.structure not in worker.compiled:
                worker.compiling = task.structure
                worker.compiled.add(task.structure)
            self._processes.send(index, request_of(task, self._known(task), self._queue))
            if task.share.alone:
                break
        return len(self._queue) < before

    def _has_place(self, worker: Worker) -> bool:
        """Whether a worker runs, or is sure to: on another machine it may have to wait."""
        return worker.host is not None or not self._processes.elsewhere

    def _only(self, task: Task) -> tuple[int, Worker]:
        """Ends all workers but one that has done nothing yet: the others' memory is free then."""
        idle = [n for n, one in self._workers.items() if not one.compiled and self._has_place(one)]
        able = [n for n in idle if self._may_do(self._workers[n], task)]
        fresh = max(able, default=None)
        for index in [n for n in self._workers if n != fresh]:
            self._end(index)
        index = self._processes.start() if fresh is None else fresh
        return index, self._workers.setdefault(index, Worker())

    def _end(self, index: int) -> None:
        self._processes.end(index)
        del self._workers[index]

    def _known(self, task: Task) -> Structure:
        return self._structures.setdefault(task.structure, Structure())

    def _may_do(self, worker: Worker, task: Task) -> bool:
        return self._machines.may_do(worker.host or "", task, self._hosts)

    def _pick(self, worker: Worker) -> Task | None:
        """Returns what a worker does next, of what may be done now."""
        first = min(task.order for task in self._queue)
        open_ = [
            task
            for task in self._queue
            if (task.order == first or self.any_order)
            and not (self.running and self._known(task).share.alone)
            and self._known(task).unfit is None
            and self._may_do(worker, task)
        ]
        return next_task(worker, [w for w in self._workers.values() if w is not worker], open_)

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
            self._deaths, worker.host = 0, message.host
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
        host = worker.host or ""
        if isinstance(message, Failed) and self._machines.refuse(host, task, message, self._hosts):
            return self._again(task)
        if isinstance(message, Failed) and message.kind not in (WRONG_INPUT, DIVERGED):
            raise error_of(message, self._processes.elsewhere)
        if not isinstance(message, Failed) or message.kind == DIVERGED:
            self._machines.done(host, task)
        if isinstance(message, PopulationTrained):
            self._learn(task, message)
        return Received(task, message)

    def _again(self, task: Task) -> Received | None:
        """A task is done by another worker, what it met being not its fault; or given back."""
        if task.number <= self._stopped:
            return Received(task, GivenBack())
        task.attempts -= 1
        self._queue.insert(0, task)
        return None

    def _learn(self, task: Task, result: PopulationTrained) -> None:
        self.spent.training += result.train_seconds
        self.spent.compiling += result.compile_seconds
        known = self._known(task)
        known.compile_seconds = max(known.compile_seconds, result.compile_seconds)
        known.trial_seconds = result.train_seconds / max(1, trials_in(task))
        if result.chosen == "measured":
            known.execution_mode = result.execution_mode
        for step, values in result.reached.items():
            known.reached.setdefault(step, []).extend(values)

    def _drop(self, index: int, failure: Failed) -> None:
        """A worker could not start: others can, with more memory or on a better machine."""
        others = self._hosts - {failure.host, *self._machines.left_out}
        if failure.kind != NO_MEMORY and self._processes.elsewhere and failure.host and others:
            self._machines.leave_out(failure.host, failure.message)
            self._workers[index].host = failure.host
            return
        if failure.kind != NO_MEMORY or self.count == 1:
            raise error_of(failure, self._processes.elsewhere)
        del self._workers[index]
        self.count -= 1
        self._dropped += 1
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
        known, share = self._known(task), smaller(task.share, trials_in(task))
        if share is None:
            known.unfit = f"{DID_NOT_FIT}: {reason}"
            return Received(task, Failed(task.number, NO_MEMORY, known.unfit))
        known.share = tighter(known.share, share)
        task.begun = False
        self._queue.insert(0, task)
        return None

    def _lost(self, index: int, worker: Worker, how: Ended) -> Received | None:
        """A worker died: its task waits for another, the next time as where memory is short."""
        del self._workers[index]
        task = worker.task
        if worker.host is None or not self._processes.elsewhere:  # one machine may have had many
            self._deaths += 1
        if self._deaths > DEATHS:
            raise UserError(
                f"{self._deaths} workers in a row ended before they had started; the last {how}. "
                f"Is memory short? Try fewer --workers. {KEPT}"
            )
        if task is None:
            return None
        if how.lost is not None or task.number <= self._stopped:
            return self._again(task)
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
