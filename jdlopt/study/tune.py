"""``tune``: draws points of a space, has workers train them as populations, keeps what came."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import ConfigError, Interrupted, UserError, WorkdirError
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.options import Options
from jdlopt.study.workers import Worker, Workers, default_workers, programs_are_kept

STUDY, BEST, TRIALS, POPULATIONS = "study.json", "best_config.json", "trials", "populations"
AHEAD = 2
"""Generations that may be in the workers' hands: while one ends, the next already trains."""
ATTEMPTS = 2
"""How often a task is tried, if its worker dies."""
WORTH_TIMING = 20.0
"""Formulations are timed where a structure's work is so many times what compiling one took."""


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


def tune(
    config: Mapping[str, Any],
    space: spaces.Space,
    workdir: str | Path,
    options: Options | None = None,
    on_progress: Callable[[StudyProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResult:
    """Searches a space around a config; goes on where an earlier call in the directory stopped.

    Args:
      config: the base experiment, as `jdlopt.config.load` gives it.
      space: from dotted keys to distributions, as `jdlopt.study.space.check` returns it.
      workdir: the study's directory.
      options: how to search.
      on_progress: called when something is known anew.
      should_stop: asked about ten times a second; True interrupts the study, to be gone on with.

    Returns:
      The result, also written to ``study.json``.

    Raises:
      ConfigError, DataError, UserError: the input is wrong; nothing was trained.
      WorkdirError: the directory holds something else, or another study.
      Interrupted: ``should_stop()`` said so; what was finished is kept.
    """
    options = options or Options()
    started = time.perf_counter()
    workdir = Path(workdir)
    options.check()
    space = spaces.check(space)
    claim(workdir)
    texts = {
        key: value.text
        for key, value in configs.flat(config).items()
        if isinstance(value, configs.Override)
    }
    plain = configs.to_dict(configs.override(config, dict.fromkeys(texts)))
    from jdlopt.study import storage

    storage.quiet()
    count = options.workers or default_workers()
    workers, opened = Workers(count, one_core=count > 1), None
    try:
        opened = storage.open_storage(options.storage, workdir)
        study = _Study(plain, texts, space, workdir, options, workers, opened, on_progress, started)
        return study.run(should_stop)
    finally:
        workers.close()
        if opened is not None:
            storage.close_storage(opened)


def claim(workdir: Path) -> None:
    """Makes the directory, or checks that a study may go on in it.

    Raises:
      WorkdirError: it holds a run, or files that are not a study's.
    """
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"--workdir: {workdir} is a file; name a directory.")
    workdir.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in workdir.iterdir()}
    if "config.json" in there and STUDY not in there:
        raise WorkdirError(
            f"--workdir: {workdir} is a run's directory, not a study's; choose another."
        )
    known = {STUDY, "study.db", "study.db-wal", "study.db-shm", BEST, TRIALS, POPULATIONS,
             records.CURVES, records.PARTS, "report.html"}  # fmt: skip
    strange = sorted(name for name in there - known if not name.startswith("."))
    if strange and STUDY not in there and "study.db" not in there:
        raise WorkdirError(f"--workdir: {workdir} holds {strange[0]} but no study; choose another.")


class _Study:
    """One coordinator's view of a study."""

    def __init__(
        self,
        config: dict[str, Any],
        texts: dict[str, str],
        space: spaces.Space,
        workdir: Path,
        options: Options,
        workers: Workers,
        opened: Any,
        on_progress: Callable[[StudyProgress], None] | None,
        started: float,
    ):
        self.space, self.workdir, self.options = space, workdir, options
        self.workers, self.on_progress, self.started = workers, on_progress, started
        self.traced = {
            key
            for key, one in space.items()
            if key.startswith(("model.", "loss.", "optim.", "data.augment."))
            and (
                one.kind in ("uniform", "log_uniform")
                or (one.kind == "choice" and all(type(v) is float for v in one.choices))
            )
        }
        self.queue: list[Task] = []
        self.generations: dict[int, Generation] = {}
        self.drawn = self.told = self.tasks = 0
        self.points: dict[int, dict[str, Any]] = {}
        self.finished: dict[int, dict[str, Any]] = {}
        self.structures: dict[str, dict[str, Any]] = {}
        self.formulations: dict[str, str] = {}
        self.reached: dict[str, dict[str, list[float]]] = {}
        self.training_seconds = self.compile_seconds = self.busy_seconds = 0.0
        self.best_told: int | None = None
        self.ended = False
        self.deadline = None if options.budget is None else started + options.budget
        self._open(config, texts, opened)

    # --- opening ---------------------------------------------------------------------------------

    def _open(self, config: dict[str, Any], texts: dict[str, str], opened: Any) -> None:
        import pyarrow.parquet  # noqa: F401  # a second, while the workers start as well

        from jdlopt.study import storage

        if self.options.folds is not None:
            config = configs.to_dict(
                configs.override(config, {"data.folds": self.options.folds, "data.fold": 0})
            )
        check = {
            "do": "check", "task": None, "config": config, "overrides": texts,
            "space": spaces.to_json(self.space), "folds": self.options.folds,
            "objectives": list(self.options.objectives), "traced": sorted(self.traced),
        }  # fmt: skip
        for worker in self.workers.all.values():
            worker.tell(check)  # all open the data and build the parts; the first answer counts
        facts = self._answer()
        self.config = configs.to_dict(facts["config"])
        self.resolved, self.facts = facts["resolved"], facts
        self.objectives = [
            {"name": name, "direction": way} for name, way in facts["directions"].items()
        ]
        self.monitor = facts["monitor"]
        if self.options.halving and len(self.objectives) > 1:
            raise UserError("--halving: compares by one objective; there are several here.")
        definition = {
            "config": self.config,
            "space": spaces.to_json(self.space),
            "objectives": self.objectives,
            **self.options.definition(),
        }
        definition = json.loads(json.dumps(definition))
        self.book = storage.Book(
            opened,
            self.options.study_name or "study",
            [one["direction"] for one in self.objectives],
            definition,
        )
        self._mirror(storage)
        self._write("running")

    def _answer(self) -> dict[str, Any]:
        """Waits for the check's answer; workers that are ready meanwhile are noted."""
        self.devices: list[str] = []
        self.platform = "cpu"
        while True:
            _, message = self.workers.messages.get()
            if message["event"] == "ready":
                self.platform = message["platform"]
                self.devices = message["devices"]
            elif message["event"] == "ended":
                raise RuntimeError(f"a worker ended with code {message['code']} before it worked")
            elif message["event"] == "failed":
                if message["kind"] == "user":
                    raise ConfigError(message["message"])
                raise RuntimeError(message["traceback"])
            else:
                return message

    def _mirror(self, storage: Any) -> None:
        """Rebuilds in memory what the sampler knows: its draws are made there, where it is fast."""
        import optuna

        from jdlopt.study.samplers import HISTORY_FREE, make_sampler

        options = self.options
        self.history_free = options.sampler in HISTORY_FREE
        self.mirror = optuna.create_study(
            directions=[one["direction"] for one in self.objectives],
            sampler=make_sampler(
                options.sampler, options.seed, len(self.objectives), self.book.slot, self.space
            ),
        )
        self.grid = list(spaces.points(self.space)) if options.sampler == "grid" else None
        if self.grid is not None and len(self.grid) > 10_000:
            raise UserError(
                f"--sampler=grid: the space has {len(self.grid):,} points; use fewer values or "
                "keys, or another sampler."
            )
        if self.grid is not None and options.trials is None:
            self.options = options = options.replaced(trials=len(self.grid))
        self.copies: dict[int, Any] = {}
        for trial in self.book.trials():
            self._copied(trial)
        again = [trial.number for trial in self.book.orphans()]
        if again:
            self._enqueue(again)

    def _copied(self, trial: Any) -> None:
        """Takes a trial of the storage into the mirror and into what is known to be finished."""
        import optuna

        if self.history_free and self.book.slot == 0 and self.grid is None:
            mine = self.mirror.ask()  # draws are a sequence: going through it is going on with it
            self._params(mine)
            self.copies[trial.number] = mine
        else:
            self.mirror.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    params=trial.params,
                    distributions=trial.distributions,
                    values=trial.values,
                    system_attrs=trial.system_attrs,
                )
            )
            self.copies[trial.number] = len(self.mirror.trials) - 1
        self.points[trial.number] = self._decoded(trial.params)
        record = trial.user_attrs.get("record")
        if trial.state.is_finished() and record:
            self.finished[trial.number] = record

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values that a storage's labels stand for."""
        found = {}
        for key, value in params.items():
            one = self.space[key]
            labels = {spaces.label(choice): choice for choice in one.choices}
            found[key] = labels[value] if one.kind == "choice" else value
        return found

    # --- drawing ---------------------------------------------------------------------------------

    def _params(self, trial: Any) -> dict[str, Any]:
        return spaces.suggest(trial, self.space)

    def _more(self) -> int:
        """How many trials may be drawn now."""
        if self.ended or (self.deadline and time.perf_counter() > self.deadline):
            return 0
        left = 10**9
        if self.options.trials is not None:
            left = self.options.trials - len(self.points)
        if self.grid is not None:
            left = min(left, len(self.grid) - len(self.points))
        return max(0, left)

    def _generation_size(self) -> int:
        width = self._trials_per_task() * len(self.workers.all)
        structural = any(key not in self.traced for key in self.space)
        return max(64, 4 * width) if structural and self.history_free else width

    def _trials_per_task(self) -> int:
        members = self.options.repeats * (self.options.folds or 1)
        return max(1, self._width() // members)

    def _width(self) -> int:
        if self.options.width:
            return self.options.width
        if self.platform != "cpu":
            return 32
        return 18 if self.options.halving else 8

    def _draw(self) -> None:
        """Draws a generation and queues its populations."""
        count = min(self._more(), self._generation_size())
        if not self.book.alone():
            self._see_others()
        numbers = []
        for _ in range(count):
            if self.grid is not None:
                self.mirror.enqueue_trial(
                    {k: spaces.label(v) for k, v in self.grid[len(self.points)].items()}
                )
            trial = self.mirror.ask()
            params = self._params(trial)
            frozen = self.mirror.get_trials(deepcopy=False)[trial.number]
            number = self.book.add(frozen)
            if self.options.trials is not None and number >= self.options.trials:
                self._surplus(number)
                continue
            self.copies[number], self.points[number] = trial, params
            numbers.append(number)
        self._enqueue(numbers)

    def _surplus(self, number: int) -> None:
        """Another coordinator drew the last trials at the same moment: this one is not needed."""
        record = {"state": "infeasible", "reason": "surplus", "values": None}
        self.book.finish(number, record, None)
        self.ended = True

    def _enqueue(self, numbers: list[int]) -> None:
        generation = self.drawn
        self.drawn += 1
        self.generations[generation] = Generation(set(numbers))
        groups: dict[str, list[int]] = {}
        for number in numbers:
            shape = {k: v for k, v in self.points[number].items() if k not in self.traced}
            groups.setdefault(json.dumps(shape, sort_keys=True), []).append(number)
        per_task = self._trials_per_task()
        workers = len(self.workers.all)
        for group, some in groups.items():
            # the last of a study are shared evenly, so that no worker waits for another
            size = min(per_task, max(1, -(-len(some) // workers)))
            for first in range(0, len(some), size):
                self.queue.append(self._task(group, generation, some[first : first + size]))

    def _task(self, group: str, generation: int, numbers: list[int]) -> Task:
        options = self.options
        seed = self.facts["seed"]
        folds = list(range(options.folds)) if options.folds else None
        members = [
            {
                "trial": number,
                "seed": seed + repeat,
                "fold": fold,
                "params": {k: v for k, v in self.points[number].items() if k in self.traced},
            }
            for number in numbers
            for repeat in range(options.repeats)
            for fold in (folds or (None,))
        ]
        structural = {k: v for k, v in self.points[numbers[0]].items() if k not in self.traced}
        config = configs.to_dict(configs.override(self.config, structural))
        self.tasks += 1
        order = {
            "do": "train", "task": self.tasks, "config": config, "folds": folds,
            "members": members, "width": max(self._width(), len(members)), "alone": False,
            "halving": options.halving, "reduction": options.reduction,
            "directory": str((self.workdir / POPULATIONS / f"{numbers[0]:06d}").absolute()),
        }  # fmt: skip
        return Task(self.tasks, group, generation, order, numbers)

    def _see_others(self) -> None:
        """Takes in what other coordinators have drawn and finished since."""
        for trial in self.book.trials():
            mine = trial.user_attrs.get("owner") == self.book.owner
            if trial.number not in self.points and not mine:
                self._copied(trial)
            elif trial.number not in self.finished and trial.state.is_finished() and not mine:
                self.finished[trial.number] = trial.user_attrs.get("record") or {}

    # --- working ---------------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool]) -> StudyResult:
        """Draws, hands out and takes in until the budget is spent."""
        looked = time.perf_counter()
        self._check_goal()
        while True:
            self._advance_generations()
            self._hand_out()
            busy = any(worker.task for worker in self.workers.all.values())
            if not busy and not self.queue and not self._more():
                if self._others_unfinished():
                    time.sleep(1.0)
                    self._adopt()
                    continue
                break
            with contextlib.suppress(Empty):
                self._hear(*self.workers.messages.get(timeout=0.1))
            self.book.beat()
            if should_stop():
                self._interrupt()
            if self.deadline and time.perf_counter() > self.deadline and not self.ended:
                self._end("the time budget ended")
            if time.perf_counter() - looked > 15.0:
                looked = time.perf_counter()
                self._adopt()
                self._write("running")
        return self._finish()

    def _others_unfinished(self) -> bool:
        """Whether another owner, alive or dead, still has trials to finish."""
        if self.ended:
            return False
        self._see_others()
        return any(not trial.state.is_finished() for trial in self.book.trials())

    def _adopt(self) -> None:
        lost = [t.number for t in self.book.orphans() if t.number not in self.finished]
        for number in lost:
            if number not in self.points:
                self._copied(self.book.trials()[number])
        if lost and not self.ended:
            self._enqueue(lost)

    def _advance_generations(self) -> None:
        """Draws ahead, and tells the sampler of whole generations, in order: so seeds reproduce."""
        while True:
            if self.drawn < self.told + AHEAD and self._more():
                self._draw()
                continue
            whole = self.generations.get(self.told)
            if whole is None or len(whole.records) < len(whole.trials):
                return
            for number in sorted(whole.records):
                self._tell_sampler(number, whole.records[number])
            self.told += 1

    def _tell_sampler(self, number: int, record: Mapping[str, Any]) -> None:
        if self.history_free:
            return
        from optuna.trial import TrialState

        copy = self.copies[number]
        state = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(record["state"])
        if state == TrialState.PRUNED and record["values"]:
            trial = copy if not isinstance(copy, int) else None
            if trial is not None:
                trial.report(record["values"][0], record["steps"])
        values = record["values"] if state == TrialState.COMPLETE else None
        self.mirror.tell(copy, values, state or TrialState.FAIL, skip_if_finished=True)

    def _hand_out(self) -> None:
        for worker in self.workers.all.values():
            if worker.task is None and self.queue and not self.ended:
                task = self._pick(worker)
                if task is None:
                    continue
                self.queue.remove(task)
                task.attempts += 1
                waiting = sum(len(t.trials) for t in self.queue if t.group == task.group)
                known = self.formulations.get(task.group)
                if self.options.formulation:
                    known = self.options.formulation
                order = {
                    **task.order,
                    "formulation": known,
                    "calibrate": known is None and self._worth_timing(task.group, waiting),
                    "history": self.reached.get(task.group, {}),
                }
                worker.task = task
                assert worker.groups is not None
                if task.group not in worker.groups:
                    worker.compiling = task.group
                    worker.groups.add(task.group)
                worker.tell(order)

    def _pick(self, worker: Worker) -> Task | None:
        """The next task: in order, but of a structure that the worker has compiled if it can be.

        While another worker compiles a structure, with all cores, this one waits to load what that
        keeps; or takes up another structure.
        """
        others = [one for one in self.workers.all.values() if one is not worker]
        own = worker.groups or set()
        compiling = {one.compiling for one in others} if programs_are_kept() else set()
        oldest = min(task.generation for task in self.queue)
        open_ = [
            task
            for task in self.queue
            if (task.generation == oldest or self.history_free)
            and (task.group in own or task.group not in compiling)
        ]
        known = [task for task in open_ if task.group in own]
        taken = set().union(*(one.groups or set() for one in others))
        fresh = [task for task in open_ if task.group not in taken]
        return next(iter(known or fresh or open_), None)

    def _worth_timing(self, group: str, waiting: int) -> bool:
        known = self.structures.get(self._structure_of(group) or "")
        if known is None or not known["compile_seconds"]:
            return False
        work = waiting * known["trial_seconds"]
        return work > WORTH_TIMING * known["compile_seconds"]

    def _structure_of(self, group: str) -> str | None:
        found = (name for name, one in self.structures.items() if one["group"] == group)
        return next(found, None)

    def _hear(self, index: int, message: dict[str, Any]) -> None:
        worker = self.workers.all.get(index)
        if worker is None:
            return
        event = message["event"]
        if event == "ended":
            self._lost(worker)
        elif event == "progress":
            worker.compiling = None  # other workers can load its programs now
        elif message.get("task") is None:
            return  # another worker's answer to the check
        elif event == "failed":
            task, worker.task, worker.compiling = worker.task, None, None
            if message["kind"] == "user":
                self._infeasible(task, message["message"])
            else:
                raise RuntimeError(message["traceback"])
        elif event == "done":
            task, worker.task, worker.compiling = worker.task, None, None
            self._took(task, message)

    def _lost(self, worker: Worker) -> None:
        """A worker died: its task is given to another, once."""
        task = worker.task
        del self.workers.all[worker.index]
        if self.ended and task is None:
            return
        self.workers.start()
        if task is None:
            return
        if task.attempts < ATTEMPTS:
            self.queue.insert(0, task)
        else:
            self._infeasible(task, f"its worker died {ATTEMPTS} times (out of memory?)")

    def _infeasible(self, task: Task, reason: str) -> None:
        for number in task.trials:
            record: dict[str, Any] = {
                "state": "infeasible", "values": None, "interval": None, "members": [],
                "metrics": {}, "steps": 0, "reason": reason,
            }  # fmt: skip
            self._keep(task, number, record)
        self._report()

    def _took(self, task: Task, message: Mapping[str, Any]) -> None:
        records.add_curves(self.workdir, records.rows_of(message["members"]))
        steps = sum(member["steps"] for member in message["members"])
        self.training_seconds += message["train_seconds"]
        self.compile_seconds += message["compile_seconds"]
        self.busy_seconds += message["seconds"]
        self._note_structure(task, message, steps)
        for number in task.trials:
            members = [one for one in message["members"] if one["trial"] == number]
            record = records.of_trial(members, message, self.objectives, self.monitor)
            if any(member["status"] == "running" for member in members):
                if self.interrupted:
                    continue  # it goes on from its checkpoint
                record["reason"] = self.end_reason
            self._keep(task, number, record)
        for step, values in message.get("reached", {}).items():
            self.reached.setdefault(task.group, {}).setdefault(step, []).extend(values)
        self._drop_population(task)
        self._check_goal()
        self._report()

    interrupted = False
    end_reason: str | None = None

    def _drop_population(self, task: Task) -> None:
        import shutil

        if not self.interrupted:
            shutil.rmtree(task.order["directory"], ignore_errors=True)

    def _note_structure(self, task: Task, message: Mapping[str, Any], steps: int) -> None:
        if "formulation" not in message:
            return
        name = message["fingerprint"]
        known = self.structures.setdefault(
            name,
            {
                "group": task.group,
                "formulation": message["formulation"],
                "chosen": message["chosen"],
                "seconds": {},
                "width": task.order["width"],
                "compile_seconds": 0.0,
                "n_params": message["n_params"],
                "trial_seconds": 0.0,
            },
        )
        known["compile_seconds"] = max(known["compile_seconds"], message["compile_seconds"])
        known["trial_seconds"] = message["train_seconds"] / max(1, len(task.trials))
        if message["chosen"] == "measured":
            known |= {
                "formulation": message["formulation"],
                "chosen": "measured",
                "seconds": message["step_seconds_measured"],
            }
            self.formulations[task.group] = message["formulation"]

    def _keep(self, task: Task, number: int, record: dict[str, Any]) -> None:
        self.book.finish(number, record, record["values"])
        self.finished[number] = record
        self.generations[task.generation].records[number] = record

    def _check_goal(self) -> None:
        goal = self.options.goal()
        if goal is None or self.ended:
            return
        name, reached = goal
        for record in self.finished.values():
            value = record.get("metrics", {}).get(name)
            if record.get("state") == "done" and value is not None and reached(value):
                self._end(f"the goal {self.options.until} was reached")
                return

    def _end(self, reason: str) -> None:
        self.ended, self.end_reason = True, reason
        for task in self.queue:
            for number in task.trials:
                record: dict[str, Any] = {
                    "state": "pruned", "values": None, "interval": None, "members": [],
                    "metrics": {}, "steps": 0, "reason": reason,
                }  # fmt: skip
                self._keep(task, number, record)
        self.queue.clear()
        self.workers.stop()

    def _interrupt(self) -> None:
        """Has the workers save what they train, and leaves it to the next call."""
        self.interrupted = self.ended = True
        self.workers.stop()
        deadline = time.perf_counter() + 60.0
        while any(worker.task for worker in self.workers.all.values()):
            with contextlib.suppress(Empty):
                self._hear(*self.workers.messages.get(timeout=0.5))
            if time.perf_counter() > deadline:
                break
        self._write("interrupted")
        self.book.leave()
        raise Interrupted(
            f"interrupted after {len(self.finished)} trials; kept in {self.workdir}. The same "
            "command goes on from there."
        )

    # --- telling ---------------------------------------------------------------------------------

    def _rows(self) -> list[dict[str, Any]]:
        self._see_others()
        rows = []
        for number in sorted(self.points):
            record = self.finished.get(number) or {"state": "running", "values": None}
            if record.get("reason") != "surplus":
                rows.append({"number": number, "params": self.points[number], **record})
        return rows

    def _report(self) -> None:
        if self.on_progress is None:
            return
        states = [record.get("state") for record in self.finished.values()]
        rows = [
            {"number": number, **record}
            for number, record in self.finished.items()
            if record.get("values")
        ]
        order = records.best(rows, self.objectives)
        best = None
        if order:
            best = (order[0], self.finished[order[0]]["values"][0])
        improved = best is not None and best[0] != self.best_told
        self.best_told = best[0] if best else None
        elapsed = time.perf_counter() - self.started
        left = None
        if self.options.trials and self.finished:
            waiting = self.options.trials - len(self.finished)
            left = elapsed / len(self.finished) * waiting
        if self.deadline is not None:
            until = self.deadline - time.perf_counter()
            left = until if left is None else min(left, until)
        counts = {state: states.count(state) for state in records.TOLD}
        running = len(self.points) - len(self.finished)
        self.on_progress(
            StudyProgress(
                counts["done"],
                running,
                counts["pruned"],
                counts["infeasible"],
                self.options.trials,
                best,
                improved,
                left,
            )
        )

    def _write(self, status: str) -> dict[str, Any]:
        wall = time.perf_counter() - self.started
        rows = self._rows()
        order = records.best(rows, self.objectives)
        spent = self.training_seconds + self.compile_seconds
        count = len(self.workers.all) or 1
        structures = {
            name: {key: value for key, value in one.items() if key != "group"}
            for name, one in self.structures.items()
        }
        record: dict[str, Any] = {
            "status": status,
            **self.options.definition(),
            "objectives": self.objectives,
            "config": self.resolved,
            "space": spaces.to_json(self.space),
            "trials": rows,
            "best": order[0] if order else None,
            "pareto": records.pareto(rows, self.objectives),
            "structures": structures,
            "time": {
                "wall_seconds": wall,
                "training_seconds": self.training_seconds,
                "compile_seconds": self.compile_seconds,
                "outside_share": max(0.0, 1.0 - spent / (wall * count)),
                "workers": count,
            },
            "readings": [],
            "versions": self.facts["versions"],
            "devices": self.devices,
        }
        if order:
            best = self._trial_config(order[0])
            write_aside(self.workdir / BEST, configs.dumps(best))
        self._save(record)
        return record

    def _save(self, record: Mapping[str, Any]) -> None:
        write_aside(self.workdir / STUDY, json.dumps(_finite(record), indent=1) + "\n")

    def _trial_config(self, number: int) -> dict[str, Any]:
        config = configs.override(self.config, {**self.points[number], "seed": self.facts["seed"]})
        return configs.to_dict(config)

    def _finish(self) -> StudyResult:
        """Trains the best few as runs of their own, reads what the study means, reports."""
        record = self._write("done")
        order = records.best(record["trials"], self.objectives)[: self.options.keep]
        if order:
            self._train_best(order)
        self.book.leave()
        table = records.gather_curves(self.workdir)
        from jdlopt.study.readings import readings

        record["readings"] = readings(record, table)
        record["time"]["wall_seconds"] = time.perf_counter() - self.started
        spent = self.training_seconds + self.compile_seconds
        total = record["time"]["wall_seconds"] * record["time"]["workers"]
        record["time"] |= {
            "training_seconds": self.training_seconds,
            "compile_seconds": self.compile_seconds,
            "outside_share": max(0.0, 1.0 - spent / total),
        }
        self._save(record)
        if self.options.report:
            from jdlopt.report import write_report

            write_report(self.workdir)
        return StudyResult(record, self.workdir)

    def _train_best(self, numbers: list[int]) -> None:
        """Trains the best trials once more, by `fit`: their checkpoints, logs and test metrics."""
        waiting = list(numbers)
        idle = [w for w in self.workers.all.values() if w.task is None]
        running = 0
        while waiting or running:
            while waiting and idle:
                worker, number = idle.pop(), waiting.pop(0)
                place = self.workdir / TRIALS / f"{number:04d}"
                worker.tell({
                    "do": "fit", "task": number, "config": self._trial_config(number),
                    "workdir": str(place.absolute()),
                })  # fmt: skip
                running += 1
            index, message = self.workers.messages.get()
            if message["event"] in ("done", "failed", "ended"):
                running -= 1
                if message["event"] == "done":
                    self.training_seconds += message["record"]["wall_seconds"]
                    idle.append(self.workers.all[index])


def write_aside(path: Path, text: str) -> None:
    """Writes a file beside its final name and renames it."""
    aside = path.with_name(f".{path.name}.aside")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkdirError(f"{path}: can't be written: {error.strerror}.") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return None
    return value
