"""One coordinator's work on a study: trials are scheduled, trained and written down, to its end."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from typing import NoReturn

from jdlopt.errors import Interrupted, UserError
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import (
    NO_MEMORY,
    RUNNING,
    Failed,
    PopulationTrained,
    TrainPopulation,
)
from jdlopt.executor.shortage import DID_NOT_FIT
from jdlopt.executor.task import GivenBack, Received, Task
from jdlopt.memory import LESS_MEMORY
from jdlopt.study import curves, known_data, records
from jdlopt.study.database import lock_folder
from jdlopt.study.finishing import finish
from jdlopt.study.progress import Progress, trials_of
from jdlopt.study.samplers import HISTORY_FREE
from jdlopt.study.scheduling import Scheduler
from jdlopt.study.setup import Setup, StudyProgress, StudyResult, check_whole
from jdlopt.study.storage import RECORD, StudyStorage
from jdlopt.study.trials import Trials

LOOK_SECONDS, IDLE_SECONDS = 15.0, 1.0
"""How often the storage is read for what others did: with work of one's own, and without."""
MOST_LEFT_OUT = 64
"""So many trials in a row that don't fit in memory end a search that has no other end."""


class Search:
    """A study as one coordinator works on it.

    Args:
      setup: what the study is.
      database: the storage, open.
      executor: whose workers train.
      started: when the call began, a moment of `time.perf_counter`.
      on_progress: called when something is known anew.

    Raises:
      WorkdirError: the study in the storage is another one, or began with other data.
    """

    def __init__(
        self,
        setup: Setup,
        database: object,
        executor: Executor,
        started: float,
        on_progress: Callable[[StudyProgress], None] | None = None,
    ):
        self.setup, self.executor = setup, executor
        directions = [one["direction"] for one in setup.objectives]
        name = setup.options.study_name or "study"
        locks = lock_folder(setup.options.storage, setup.workdir)
        self.storage = StudyStorage(database, name, directions, setup.definition, locks)
        finished = [trial for trial in self.storage.trials() if trial.state.is_finished()]
        known = {trial.number for trial in finished if RECORD in trial.user_attrs}
        check_whole(setup.workdir, known, setup.options.storage)
        data = known_data.keep(self.storage, setup)
        # results may decide what is trained next: then a worker waits until they are written down
        self.waits = setup.options.halving is not None or setup.options.until is not None
        executor.any_order = setup.options.sampler in HISTORY_FREE
        self.trials = Trials(setup, self.storage)
        self.scheduler = Scheduler(self.trials, executor)
        self.scheduler.take_over()
        self.progress = Progress(self.scheduler, started, on_progress, data)
        self.why_ended: str | None = None
        self.in_a_row = 0  # trials that did not fit in memory
        self.interrupted = False

    def run(self, should_stop: Callable[[], bool]) -> StudyResult:
        """Trains until the trials or the budget are spent, a goal is reached, or it is stopped."""
        try:
            self._train(should_stop)
            self._check_fits()
            return finish(self.progress, self.why_ended, should_stop) or self._leave()
        finally:
            with contextlib.suppress(Exception):  # where it is the storage that has failed
                self.storage.leave()

    def _train(self, should_stop: Callable[[], bool]) -> None:
        """Trains until nothing is left to be trained, here or by other coordinators."""
        try:
            self._train_on(should_stop)
        except UserError:  # the environment's fault: the next call trains what the workers had
            with contextlib.suppress(UserError):
                self.progress.write("interrupted")
            raise

    def _train_on(self, should_stop: Callable[[], bool]) -> None:
        self.progress.write("running")
        self.check_goal()
        looked = time.perf_counter()
        while True:
            self.advance()
            idle = not self.executor.busy and not self.scheduler.more
            since = time.perf_counter() - looked
            if since > (IDLE_SECONDS if idle else LOOK_SECONDS):
                looked = time.perf_counter()
                self.scheduler.adopt()
                self.check_goal()
                self.progress.write("running")
            elif idle and not self._others_work():
                return
            received = self.executor.receive(0.1)
            if received is not None:
                self.take(received)
            self.storage.beat()
            if should_stop():
                self._interrupt()
            if self.executor.late and not self.scheduler.ended:
                self.end("the time budget ended")

    def advance(self) -> None:
        """Schedules trials and gives idle workers theirs."""
        self.scheduler.advance()
        if self.executor.dispatch():
            self.progress.report()

    def _others_work(self) -> bool:
        return not self.scheduler.ended and self.trials.others_work()

    # --- results ----------------------------------------------------------------------------------

    def take(self, received: Received) -> None:
        """Takes in what became known of a population."""
        task, message = received
        if isinstance(message, GivenBack):
            if not self.interrupted:
                self.trials.release(trials_of(task))
        elif isinstance(message, PopulationTrained | Failed):
            if not self.waits and self.executor.dispatch():
                self.progress.report()  # writing down takes a while: its worker trains on meanwhile
            if isinstance(message, PopulationTrained):
                self.in_a_row = 0
                self._keep(task, message)
            elif message.kind == NO_MEMORY:
                self._leave_out(task, message.message)
            else:
                for number in trials_of(task):
                    self._finish(task, number, records.infeasible(message.message))
            if not self.interrupted:
                assert isinstance(task.request, TrainPopulation)
                shutil.rmtree(task.request.directory, ignore_errors=True)
            self.check_goal()
            self.progress.report()

    def _keep(self, task: Task, result: PopulationTrained) -> None:
        """Writes down what a population's trials came to.

        Of those that were stopped, an interruption leaves all to the next call, and the end of the
        budget those that had not begun.
        """
        self.progress.note_structure(task, result)
        numbers = trials_of(task)
        unfinished = {one.number for one in result.trials if one.status == RUNNING}
        if self.interrupted:
            kept = [number for number in numbers if number not in unfinished]
        else:
            begun = {one.number for one in result.trials if one.steps}
            kept = [n for n in numbers if n not in unfinished or n in begun]
            self.trials.release([number for number in numbers if number not in kept])
        trainings = [one for one in result.trials if one.number in kept]
        curves.add(self.setup.workdir, curves.rows_of(trainings))
        for number in kept:
            own = [one for one in trainings if one.number == number]
            record = records.of_trial(own, result, self.setup.objectives, self.setup.monitor)
            if number in unfinished:
                record["reason"] = self.why_ended
            self._finish(task, number, record)

    def _finish(self, task: Task, number: int, record: dict[str, object]) -> None:
        self.scheduler.note(task.order, number, self.trials.finish(number, record))

    def _leave_out(self, task: Task, reason: str) -> None:
        """Leaves out what does not fit in memory: it is no result, and the next call tries again.

        A search of which nothing fits any more ends.
        """
        for number in trials_of(task):
            self.trials.leave_out(number, reason)
            record = records.left_out(reason)
            self.scheduler.note(task.order, number, record)
            self.in_a_row += 1
        if not self.scheduler.ended and self.in_a_row >= MOST_LEFT_OUT:
            self.end(f"the last {self.in_a_row} trials {DID_NOT_FIT}")

    def _check_fits(self) -> None:
        """Checks that some trial was trained, if some did not fit in memory.

        Raises:
          UserError: none was.
        """
        if self.trials.left_out and not self.trials.finished:
            self.progress.write("interrupted", self.why_ended)
            reason = next(iter(self.trials.left_out.values()))
            raise UserError(
                f"no trial was trained: all {len(self.trials.left_out)} {reason.rstrip('.')}. "
                f"{LESS_MEMORY} The same command tries them again."
            )

    # --- the end ----------------------------------------------------------------------------------

    def check_goal(self) -> None:
        """Ends the search if a trial has reached its goal."""
        goal = self.setup.options.goal()
        if goal is None or self.scheduler.ended:
            return
        name, reached = goal
        for record in self.trials.finished.values():
            value = record.get("metrics", {}).get(name)
            if record.get("state") == "done" and value is not None and reached(value):
                self.end(f"the goal {self.setup.options.until} was reached")
                return

    def end(self, why: str) -> None:
        """Ends the search: what trains stops at its next evaluation, what waits is given back."""
        self.scheduler.ended, self.why_ended = True, why
        for task in self.executor.stop():
            self.trials.release(trials_of(task))

    def interrupt(self) -> None:
        """Ends the search as `end` does, but what trains is saved, to be gone on with."""
        self.interrupted = True
        self.end("interrupted")

    def _interrupt(self) -> NoReturn:
        self.interrupt()
        for received in self.executor.drain():
            self.take(received)
        self._leave()

    def _leave(self) -> NoReturn:
        self.progress.write("interrupted", self.why_ended)
        raise Interrupted(
            f"interrupted after {len(self.trials.finished)} trials; kept in {self.setup.workdir}. "
            "The same command goes on from there."
        )
