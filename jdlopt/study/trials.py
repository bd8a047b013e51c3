"""The trials of a study as a coordinator knows them: in storage, to the sampler, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from jdlopt.config import Value
from jdlopt.errors import WorkdirError
from jdlopt.study import records, schema
from jdlopt.study import space as spaces
from jdlopt.study.queue import Queue
from jdlopt.study.sampler_view import SamplerView
from jdlopt.study.samplers import HISTORY_FREE
from jdlopt.study.setup import Setup
from jdlopt.study.storage import RECORD, STATE_OF, SUM, StudyStorage, checksum, unsigned


class Trials:
    """All trials that are known: ``points`` by number, and ``finished``, the records of the ended.

    Args:
      setup: what the study is.
      storage: where trials are written, by this coordinator and by others.
    """

    def __init__(self, setup: Setup, storage: StudyStorage):
        self.setup, self.storage = setup, storage
        directions = [one["direction"] for one in setup.objectives]
        options = setup.options
        self.sampler = SamplerView(
            options.sampler, options.seed, storage.slot, directions, setup.space
        )
        self.queue = Queue(setup, storage)
        self.points: dict[int, dict[str, Any]] = {}
        self.finished: dict[int, dict[str, Any]] = {}
        self._left_out: dict[int, str] = {}

    @property
    def left_out(self) -> dict[int, str]:
        """Why trials were not trained that nobody has trained elsewhere, by number."""
        return {n: why for n, why in self._left_out.items() if n not in self.finished}

    # --- one's own --------------------------------------------------------------------------------

    def draw(self, generation: int) -> int | None:
        """Draws a point and writes it; returns its number, None if others drew the last ones."""
        grid, limit = self.setup.grid, self.setup.limit
        if grid is None:
            asked = self.queue.next()
            known = (asked.values, asked.name) if asked else ()
            point, drawn = self.sampler.draw(*known)
            number = self.storage.add(drawn, generation)
            self.sampler.name(number)
            if asked:
                self.queue.numbers[asked.name] = number
        else:
            number = self.storage.reserve(generation)
        if limit is not None and number >= limit:
            self.storage.release(number)
            return None
        self.points[number] = point if grid is None else grid[number]
        return number

    def write_points(self, numbers: Iterable[int]) -> None:
        """Writes the points of a grid, which their numbers say, into the storage."""
        if self.setup.grid is not None:
            for number in numbers:
                self.storage.set_params(number, self.setup.space, self.points[number])

    def finish(self, number: int, record: Mapping[str, Any]) -> dict[str, object]:
        """Writes a trial's record; returns the one that counts: the first."""
        kept = self.storage.finish(number, record, record["values"])
        self.finished[number] = kept
        return kept

    def release(self, numbers: Iterable[int]) -> None:
        """Gives back trials that were not trained: whoever goes on with the study trains them."""
        for number in numbers:
            self.storage.release(number)
            self.points.pop(number, None)

    def leave_out(self, number: int, reason: str) -> None:
        """Gives back a trial that can't be trained now: this coordinator takes it up no more."""
        self.storage.release(number)
        self._left_out[number] = reason

    def report(self, number: int, record: Mapping[str, object]) -> None:
        """Reports a result to the sampler, if it learns from results."""
        if self.setup.options.sampler not in HISTORY_FREE:
            self.sampler.report(number, record)

    # --- the storage's ----------------------------------------------------------------------------

    def copy(self, trial: FrozenTrial, known: bool = True) -> None:
        """Takes a trial of the storage in; its result is reported to the sampler if ``known``."""
        number, record, limit = trial.number, None, self.setup.limit
        self._check(trial)
        self.queue.note(trial)
        if trial.state.is_finished():
            record = self.finished[number] = self._record(trial)
        if self.setup.grid is None:
            self.sampler.add(trial, record if known else None)
        within = self.storage.is_ours(trial) and (limit is None or number < limit)
        if record is not None or within:
            self.points[number] = self._point(trial)

    def _record(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns a finished trial's record, checked.

        Raises:
          WorkdirError: another hand has changed it.
        """
        record: Any = trial.user_attrs.get(RECORD)
        theirs = trial.state.name == "FAIL" or not self.storage.is_ours(trial)
        if record is None and theirs:
            return records.infeasible(records.FOREIGN)
        problem = schema.problem(record, len(self.setup.objectives))
        if problem is None and SUM in record and record[SUM] != checksum(trial.params, record):
            problem = "it or the point was changed after it was written"
        elif problem is None and STATE_OF[record["state"]] != trial.state:
            problem = f"state: {record['state']!r}, but Optuna's is {trial.state.name}"
        elif (
            problem is None and trial.state.name == "COMPLETE" and record["values"] != trial.values
        ):
            problem = f"values: {record['values']!r:.60}, but Optuna's are {trial.values!r:.60}"
        if problem is not None:
            raise WorkdirError(
                f"--workdir: {self.setup.workdir}: in the study's storage, the record of trial "
                f"{trial.number} is not as jdlopt writes it: {problem}. Something else has written "
                "there; put back a copy of the storage, or choose another --workdir."
            )
        return unsigned(record)

    def _check(self, trial: FrozenTrial) -> None:
        """Checks that a trial's point is one of the space: it becomes a config that is trained.

        Raises:
          WorkdirError: it is none; another hand has changed the storage.
        """
        for key, held in trial.params.items():
            one = self.setup.space.get(key)
            if one is None:
                continue
            given = trial.distributions[key]
            if not spaces.holds(one, held) or given != spaces.optuna_distribution(one):
                raise WorkdirError(
                    f"--workdir: {self.setup.workdir}: in the study's storage, trial "
                    f"{trial.number} has {key}={held!r:.60}, which is not of the space that is "
                    "searched. Something else has written there; choose another --workdir."
                )

    def _point(self, trial: FrozenTrial) -> dict[str, Value]:
        """Returns the values that a storage's labels stand for."""
        grid = self.setup.grid
        if grid is not None and trial.number < len(grid):
            return grid[trial.number]
        return {
            key: spaces.value_of(self.setup.space[key], held)
            for key, held in trial.params.items()
            if key in self.setup.space
        }

    def see_others(self) -> None:
        """Takes in what other coordinators have drawn and finished since."""
        for trial in self.storage.trials():
            number, ended = trial.number, trial.state.is_finished()
            if self.storage.is_mine(trial) or number in self.finished:
                continue
            if not ended and number in self.points:
                continue
            if number not in self.sampler.numbers:
                self.copy(trial)
            elif ended:
                self.points[number] = self._point(trial)
                self.finished[number] = self._record(trial)
                self.report(number, self.finished[number])

    def claimed(self, known: Iterable[int]) -> list[int]:
        """Returns the unfinished trials that this coordinator has claimed, but for known ones."""
        found, passed = [], {*known, *self.finished}
        for trial in self.storage.trials():
            if not self.storage.is_mine(trial) or trial.number in passed:
                continue
            if trial.number not in self.sampler.numbers:
                self.copy(trial)
            self.points[trial.number] = self._point(trial)
            found.append(trial.number)
        return found

    def others_work(self) -> bool:
        """Says whether trials of the study are unfinished."""
        self.see_others()
        limit = self.setup.limit
        return any(
            self.storage.is_ours(trial) and (limit is None or trial.number < limit)
            for trial in self.storage.trials()
            if not trial.state.is_finished()
            and not (trial.number in self._left_out and trial.state.name == "WAITING")
        )
