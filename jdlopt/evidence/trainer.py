"""Trains configs over seeds as populations on worker processes, and keeps every training on disk.

With ``data.folds``, seed ``s`` trains on fold ``s mod folds``: seeds then vary the split as well.
A training is known by its config and its seed. One that is on disk is not done again, so whatever
asks for trainings can be killed at any moment and asked again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt.errors import Interrupted, UserError, WorkdirError
from jdlopt.study.dispatch import ATTEMPTS, DEATHS, WORTH_TIMING, pick
from jdlopt.study.search import Task
from jdlopt.study.workers import Worker, Workers, default_workers
from jdlopt.train import disk

TRAININGS, POPULATIONS = "trainings", "populations"
WIDTH_CPU, WIDTH_ACCELERATOR = 8, 32
"""Members in a population."""
PATIENCE_SECONDS = 60.0
"""How long an interruption waits for the workers to save."""
ENDED_WELL = ("done", "stopped early")


class Training(NamedTuple):
    """What one config came to with one seed.

    Attributes:
      seed: of the run.
      status: as of a population's member, or ``failed``.
      reason: why, where it did not end well.
      metrics: at the best evaluation, by name; empty where there is none.
      steps: updates made.
      n_params: numbers in the parameters.
      step_seconds: of one update, evaluations included.
      rows: the logged lines.
    """

    seed: int
    status: str
    reason: str | None
    metrics: dict[str, float]
    steps: int
    n_params: int | None
    step_seconds: float | None
    rows: list[dict[str, Any]]


Trained = dict[str, dict[int, Training]]
"""By the key of a config and the seed."""


def key_of(config: configs.AnyConfig) -> str:
    """Returns 16 hex digits that tell a resolved config from all others, its seed left out."""
    tree = configs.to_dict(config)
    tree.pop("seed", None)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def floats_of(config: configs.AnyConfig) -> dict[str, float]:
    """Returns the traced floats of a resolved config by their dotted keys."""
    sections = tuple(".".join(path) + "." for path in configs.TRACED_SECTIONS)
    return {
        key: value
        for key, value in configs.flat(config).items()
        if isinstance(value, float) and key.startswith(sections)
    }


class Trainer:
    """Worker processes and the trainings of one directory; a context manager.

    Args:
      workdir: where trainings are kept; made, and locked.
      workers: processes; one a core by default.
      should_stop: asked about ten times a second; True interrupts, to be gone on with.
      deadline: a moment of `time.perf_counter` after which nothing more is trained.
      on_progress: called with how many trainings are done and how many there are.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        workers: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        deadline: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ):
        self.workdir, self.should_stop = workdir, should_stop
        self.deadline, self.on_progress = deadline, on_progress
        self.count = workers or default_workers()
        self.workers: Workers | None = None
        self.width = WIDTH_CPU
        self.seconds = {"training": 0.0, "compiling": 0.0}
        self.trained = 0
        self._formulations: dict[str, str] = {}
        self._cost: dict[str, tuple[float, float]] = {}
        self._tasks = self._deaths = 0
        self._stopped = False

    def __enter__(self) -> Trainer:
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            (self.workdir / TRAININGS).mkdir(exist_ok=True)
            self._lock = (self.workdir / ".lock").open("w")
        except OSError as error:
            raise WorkdirError(
                f"--workdir: {self.workdir} can't be written: {error.strerror}. Choose another."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise WorkdirError(
                f"--workdir: another process is at work in {self.workdir}."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.workers is not None:
            self.workers.close()
            self.workers = None
        self._lock.close()

    # --- what is on disk -------------------------------------------------------------------------

    def known(self, config: configs.AnyConfig) -> dict[int, Training]:
        """Returns the trainings of a config that are on disk, by seed; a damaged line is none."""
        path = self.workdir / TRAININGS / f"{key_of(config)}.jsonl"
        found: dict[int, Training] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    one = Training(**json.loads(line))
                    found[one.seed] = one
        return found

    def _keep(self, config: configs.AnyConfig, trainings: Sequence[Training]) -> None:
        path = self.workdir / TRAININGS / f"{key_of(config)}.jsonl"
        text = "".join(json.dumps(disk.as_json(one._asdict())) + "\n" for one in trainings)
        try:
            beside = path.with_suffix(".json")
            if not beside.exists():
                disk.write_aside(beside, configs.dumps(config))
            with path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a process was killed within its last line
                        file.write(b"\n")
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error

    # --- training --------------------------------------------------------------------------------

    def train(self, wanted: Iterable[tuple[configs.AnyConfig, Iterable[int]]]) -> Trained:
        """Trains every config with every one of its seeds, those that are on disk excepted.

        Args:
          wanted: resolved configs, each with its seeds.

        Returns:
          What each came to. After the deadline, those that were not finished are left out.

        Raises:
          Interrupted: ``should_stop()`` said so; what was finished is kept.
          UserError: workers die again and again.
        """
        found: Trained = {}
        groups: dict[str, list[tuple[configs.AnyConfig, int]]] = {}
        total = 0
        for config, seeds in wanted:
            key = key_of(config)
            there = self.known(config)
            own = found.setdefault(key, {})
            for seed in dict.fromkeys(seeds):
                total += seed not in own
                if seed in there:
                    own[seed] = there[seed]
                elif seed not in own:
                    group = f"{configs.fingerprint(config)}-{sorted(floats_of(config))}"
                    groups.setdefault(group, []).append((config, seed))
        queue = self._queue(groups)
        if queue:
            self._run(queue, found, total)
        return found

    def _queue(self, groups: Mapping[str, list[tuple[configs.AnyConfig, int]]]) -> list[Task]:
        """Cuts the trainings of each structure into populations."""
        queue = []
        for group, members in groups.items():
            unique = list({(key_of(c), seed): (c, seed) for c, seed in members}.values())
            size = min(self.width, max(1, -(-len(unique) // self.count)))
            for first in range(0, len(unique), size):
                queue.append(self._task(group, unique[first : first + size]))
        return queue

    def _task(self, group: str, members: Sequence[tuple[configs.AnyConfig, int]]) -> Task:
        self._tasks += 1
        base = configs.to_dict(members[0][0])
        folds = base["data"]["folds"]
        names = [f"{key_of(config)}-{seed}" for config, seed in members]
        folder = hashlib.sha256("|".join(names).encode()).hexdigest()[:16]
        order = {
            "do": "train",
            "task": self._tasks,
            "config": base,
            "folds": list(range(folds)) if folds else None,
            "members": [
                {
                    "trial": index,
                    "seed": seed,
                    "fold": seed % folds if folds else None,
                    "params": floats_of(config),
                }
                for index, (config, seed) in enumerate(members)
            ],
            "width": max(self.width, len(members)),
            "halving": None,
            "reduction": 3,
            "history": {},
            "directory": str((self.workdir / POPULATIONS / folder).absolute()),
        }
        task = Task(self._tasks, group, 0, order, list(range(len(members))))
        task.order["_configs"] = [configs.to_dict(config) for config, _ in members]
        return task

    def _start(self) -> Workers:
        if self.workers is None:
            self.workers = Workers(self.count, one_core=self.count > 1)
        return self.workers

    def _run(self, queue: list[Task], found: Trained, total: int) -> None:
        workers = self._start()
        while queue or any(worker.task for worker in workers.all.values()):
            late = self.deadline is not None and time.perf_counter() > self.deadline
            if self.should_stop():
                self._interrupt(found)
            if late and queue:
                queue.clear()
                workers.stop()
                self._stopped = True
            for worker in list(workers.all.values()):
                if worker.task is None and queue:
                    self._hand_out(queue, workers, worker)
            heard = workers.hear(0.1)
            if heard is not None:
                self._hear(queue, found, *heard)
                if self.on_progress:
                    self.on_progress(sum(map(len, found.values())), total)
        if self._stopped:  # a worker that was told to stop trains nothing more
            workers.close()
            self.workers, self._stopped = None, False

    def _hand_out(self, queue: list[Task], workers: Workers, worker: Worker) -> None:
        task = pick(queue, workers.all, worker, any_order=True)
        if task is None:
            return
        queue.remove(task)
        task.attempts += 1
        worker.task = task
        assert worker.groups is not None
        if task.group not in worker.groups:
            worker.compiling = task.group
            worker.groups.add(task.group)
        waiting = sum(len(other.trials) for other in queue if other.group == task.group)
        trial, compiling = self._cost.get(task.group, (0.0, 0.0))
        chosen = self._formulations.get(task.group)
        order = {key: value for key, value in task.order.items() if not key.startswith("_")}
        worker.tell({
            **order,
            "formulation": chosen,
            "calibrate": chosen is None and waiting * trial > WORTH_TIMING * compiling > 0,
        })  # fmt: skip

    def _hear(
        self, queue: list[Task], found: Trained, index: int, message: Mapping[str, Any]
    ) -> None:
        assert self.workers is not None
        worker = self.workers.all.get(index)
        if worker is None:
            return
        event = message["event"]
        if event == "ready":
            self.width = WIDTH_CPU if message["platform"] == "cpu" else WIDTH_ACCELERATOR
        elif event == "progress":
            worker.compiling, self._deaths = None, 0
        elif event == "ended":
            self._lost(queue, found, worker, message["code"])
        elif event in ("done", "failed") and worker.task is not None:
            task, worker.task, worker.compiling, self._deaths = worker.task, None, None, 0
            if event == "done":
                self._took(task, message, found)
            elif message["kind"] == "user":
                self._failed(task, message["message"], found)
            else:
                raise RuntimeError(message["traceback"])

    def _took(self, task: Task, message: Mapping[str, Any], found: Trained) -> None:
        self.seconds["training"] += message["train_seconds"]
        self.seconds["compiling"] += message["compile_seconds"]
        if message.get("chosen") == "measured":
            self._formulations[task.group] = message["formulation"]
        if message["compile_seconds"]:
            each = message["train_seconds"] / max(1, len(task.trials))
            self._cost[task.group] = (each, message["compile_seconds"])
        unfinished = False
        for index, config in enumerate(task.order["_configs"]):
            own = [m for m in message["members"] if m["trial"] == index]
            ended = [member for member in own if member["status"] != "running"]
            unfinished |= len(ended) < len(own)
            self._note(config, [_training(member, message) for member in ended], found)
        if not unfinished:
            shutil.rmtree(task.order["directory"], ignore_errors=True)

    def _failed(self, task: Task, reason: str, found: Trained) -> None:
        for config, member in zip(task.order["_configs"], task.order["members"]):
            none = Training(member["seed"], "failed", reason, {}, 0, None, None, [])
            self._note(config, [none], found)
        shutil.rmtree(task.order["directory"], ignore_errors=True)

    def _note(
        self, config: configs.AnyConfig, trainings: Sequence[Training], found: Trained
    ) -> None:
        if trainings:
            self._keep(config, trainings)
            self.trained += len(trainings)
            found[key_of(config)].update({one.seed: one for one in trainings})

    def _lost(self, queue: list[Task], found: Trained, worker: Worker, code: int) -> None:
        assert self.workers is not None
        del self.workers.all[worker.index]
        self._deaths += 1
        if self._deaths > DEATHS:
            raise UserError(
                f"{self._deaths} workers in a row ended with code {code} before they had trained "
                "anything. Is memory short? Try fewer --workers. What was finished is kept."
            )
        self.workers.start()
        if worker.task is None:
            return
        if worker.task.attempts < ATTEMPTS:
            queue.insert(0, worker.task)
        else:
            reason = f"its worker died {ATTEMPTS} times (out of memory?)"
            self._failed(worker.task, reason, found)

    def _interrupt(self, found: Trained) -> None:
        """Has the workers save what they train, and leaves it to the next call."""
        assert self.workers is not None
        self.workers.stop()
        until = time.perf_counter() + PATIENCE_SECONDS
        while any(worker.task for worker in self.workers.all.values()):
            heard = self.workers.hear(0.5)
            if heard is not None and heard[1]["event"] == "ended":
                self.workers.all.pop(heard[0], None)
            elif heard is not None:
                self._hear([], found, *heard)
            if time.perf_counter() > until:
                break
        raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"interrupted; what was trained is kept in {self.workdir}. The same command goes on "
            "from there."
        )

    # --- runs ------------------------------------------------------------------------------------

    def runs(self, wanted: Mapping[Path, configs.AnyConfig]) -> dict[Path, dict[str, Any]]:
        """Trains configs by `fit`, each in a run's directory; returns their ``result.json``.

        A run that is there already is not trained again. One that fails has a record with
        ``status`` and ``reason`` alone.

        Args:
          wanted: configs by directory; the seed is the config's own.
        """
        workers = self._start()
        waiting = list(wanted.items())
        found: dict[Path, dict[str, Any]] = {}
        at_work: dict[int, Path] = {}
        while waiting or at_work:
            if self.should_stop():
                self.workers = None
                workers.close()
                raise self._interrupted()
            for index in [i for i in workers.all if i not in at_work]:
                if waiting:
                    place, config = waiting.pop(0)
                    at_work[index] = place
                    workers.all[index].tell({
                        "do": "fit", "task": str(place), "config": configs.to_dict(config),
                        "workdir": str(place.absolute()),
                    })  # fmt: skip
            heard = workers.hear(0.1)
            if heard is None:
                continue
            index, message = heard
            if message["event"] in ("done", "failed") and index in at_work:
                place = at_work.pop(index)
                failed = {"status": "failed", "reason": message.get("message")}
                found[place] = message.get("record") or failed
            elif message["event"] == "ended":
                workers.all.pop(index, None)
                if index in at_work:
                    reason = f"its worker ended with code {message['code']}"
                    found[at_work.pop(index)] = {"status": "failed", "reason": reason}
                workers.start()
        return found


def _training(member: Mapping[str, Any], facts: Mapping[str, Any]) -> Training:
    """What a worker tells of a member, with the metrics of its best evaluation."""
    rows = [row for row in member["rows"] if row["step"] == member["best_step"]]
    metrics = {
        name: float(value)
        for name, value in (rows[0] if rows else {}).items()
        if "/" in name and isinstance(value, int | float)
    }
    return Training(
        seed=member["seed"],
        status=member["status"],
        reason=member["reason"],
        metrics=metrics,
        steps=member["steps"],
        n_params=facts.get("n_params"),
        step_seconds=facts.get("step_seconds"),
        rows=list(member["rows"]),
    )
