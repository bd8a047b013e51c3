"""Trains configs over seeds as populations on worker processes, and keeps every training on disk.

With ``data.folds``, seed ``s`` trains on fold ``s mod folds``: seeds then vary the split as well.
A training is known by its config and its seed. One that is on disk is not done again, so whatever
asks for trainings can be killed at any moment and asked again. One that failed is never on disk:
what it lacked may be there the next time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.errors import Interrupted, UserError, WorkdirError, listing
from jdlopt.evidence.records import POPULATIONS, TRAININGS, WEIGHTS
from jdlopt.evidence.trainings import (
    FAILED,
    Training,
    failed_training,
    line_of,
    read_line,
    training_of,
)
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import (
    DIVERGED,
    NO_MEMORY,
    RUNNING,
    Failed,
    PopulationTrained,
    RunTrained,
    TrainPopulation,
    TrainRun,
    Trial,
)
from jdlopt.executor.processes import default_workers
from jdlopt.executor.task import Received, Spent
from jdlopt.memory import LESS_MEMORY
from jdlopt.study import WORKER
from jdlopt.train import disk, weights_file

WIDTH_CPU, WIDTH_ACCELERATOR = 8, 32
"""Trials in a population."""
ENDED_WELL = ("done", "stopped early")


class TrainingsWarning(UserWarning):
    """A line of what was trained is damaged and was passed over."""


Trained = dict[str, dict[int, Training]]
"""By the key of a config and the seed."""


def key_of(config: configs.AnyConfig, after: str = "") -> str:
    """Returns 16 hex digits that tell a resolved config from all others, its seed left out.

    Args:
      config: resolved.
      after: what its weights had been through before, where they are not random at the start.
    """
    tree = configs.to_dict(config)
    tree.pop("seed", None)
    text = json.dumps(tree, sort_keys=True) + (f"\n{after}" if after else "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def floats_of(config: configs.AnyConfig) -> dict[str, float]:
    """Returns the traced floats of a resolved config by their dotted keys."""
    sections = tuple(".".join(path) + "." for path in configs.TRACED_SECTIONS)
    return {
        key: value
        for key, value in configs.flat(config).items()
        if isinstance(value, float) and key.startswith(sections)
    }


def population_size(trainings: int, workers: int, width: int) -> int:
    """Returns how many trainings a population has: as many a worker, and no more than ``width``.

    Example:
      >>> population_size(40, workers=2, width=8), population_size(3, workers=2, width=8)
      (7, 2)
    """
    rounds = -(-trainings // (width * workers))
    return -(-trainings // (rounds * workers))


class Wanted(NamedTuple):
    """One training that is asked for, with what becomes of its weights.

    Attributes:
      config: resolved.
      seed: of the run.
      start: the file of weights that it starts from; None: as the config says.
      after: what those weights have been through, in words: with config and seed it says which
        training this is.
      keep: whether its best weights are kept, in `Trainer.weights_of`.
      own_fold: whether it trains on the config's ``data.fold``, whatever its seed.
    """

    config: configs.AnyConfig
    seed: int
    start: Path | None = None
    after: str = ""
    keep: bool = False
    own_fold: bool = False

    @property
    def key(self) -> str:
        """What it is known by, with its seed."""
        return key_of(self.config, self.after)


class Trainer:
    """Worker processes and the trainings of one directory; a context manager.

    Args:
      workdir: where trainings are kept; made, and locked.
      workers: processes; one a core by default.
      workers_on: where they run, see `jdlopt.executor.place`.
      should_stop: asked about ten times a second; True interrupts, to be gone on with.
      deadline: a moment of `time.perf_counter` after which nothing more is trained.
      on_progress: called with how many trainings are done and how many there are.

    Attributes:
      trained: how many trainings this call has made.
      left_out: by key, why configs were not trained that did not fit in memory; that is no result,
        and the next call tries again.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        workers: int | None = None,
        workers_on: str | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        deadline: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ):
        self.workdir, self.should_stop = workdir, should_stop
        self.deadline, self.on_progress = deadline, on_progress
        self.workers, self.workers_on = workers, workers_on
        self.trained = 0
        self.left_out: dict[str, str] = {}
        self._failed: Trained = {}
        self._told: set[str] = set()
        self._bases: dict[str, configs.AnyConfig] = {}
        self._executor: Executor | None = None

    def __enter__(self) -> Trainer:
        try:
            writing.make_folder(self.workdir)
            writing.refuse_links(self.workdir, TRAININGS, POPULATIONS, WEIGHTS)
            writing.make_folder(self.workdir / TRAININGS)
            self._lock = writing.lock_file(self.workdir / ".lock")
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
        if self._executor is not None:
            self._executor.close()
            self._executor = None
        self._lock.close()

    @property
    def count(self) -> int:
        """How many workers there are, or would be here."""
        started = self._executor
        return (self.workers or default_workers()) if started is None else started.count

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that workers spent on populations so far."""
        spent = Spent() if self._executor is None else self._executor.spent
        return {"training": spent.training, "compiling": spent.compiling}

    # --- what is on disk -------------------------------------------------------------------------

    def known(self, config: configs.AnyConfig) -> dict[int, Training]:
        """Returns the trainings of a config that are on disk, by seed; a damaged line is none."""
        return self._known(key_of(config))

    def weights_of(self, key: str, seed: int) -> Path:
        """Returns where the best weights of a training are kept, if that was asked for."""
        return self.workdir / WEIGHTS / key / f"{seed}.safetensors"

    def _known(self, key: str) -> dict[int, Training]:
        path = self.workdir / TRAININGS / f"{key}.jsonl"
        found: dict[int, Training] = {}
        damaged: list[int] = []
        for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else [], 1):
            one = read_line(line)
            if one is not None and one.status != FAILED:
                found[one.seed] = one
            elif one is None and line:
                damaged.append(number)
        if damaged:
            told = (
                f"{path}: line {listing(damaged)} is damaged and counts as none; what is missing "
                "is trained again."
            )
            if told not in self._told:
                self._told.add(told)
                warnings.warn(told, TrainingsWarning, stacklevel=2)
        return found

    def keep(self, wanted: Wanted, trainings: Sequence[Training]) -> None:
        """Adds trainings to those on disk.

        Raises:
          WorkdirError: they can't be written.
        """
        path = self.workdir / TRAININGS / f"{wanted.key}.jsonl"
        text = "".join(line_of(one) for one in trainings)
        try:
            beside = path.with_suffix(".json")
            if not beside.exists():
                writing.write_aside(beside, configs.dumps(wanted.config))
            with writing.appended(path) as file:
                is_new = not file.tell()
                if not is_new:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a process was killed within its last line
                        file.write(b"\n")
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                writing.settle(path.parent)
        except OSError as error:
            raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error

    # --- training --------------------------------------------------------------------------------

    def train(
        self, wanted: Iterable[tuple[configs.AnyConfig, Iterable[int]]], keep_first: bool = False
    ) -> Trained:
        """Trains every config with every one of its seeds, those that are on disk excepted.

        Args:
          wanted: resolved configs, each with its seeds.
          keep_first: whether the best weights of each config's first seed are kept, in
            `weights_of`.

        Returns:
          What each came to. After the deadline, those that were not finished are left out, and so
          are those that did not fit in memory, see ``left_out``.

        Raises:
          Interrupted: ``should_stop()`` said so; what was finished is kept.
          UserError: the environment failed: a full disk, workers that die again and again.
        """
        asked = [(config, list(dict.fromkeys(seeds))) for config, seeds in wanted]
        found = self.train_wanted(
            Wanted(config, seed, keep=keep_first and seed == seeds[0])
            for config, seeds in asked
            for seed in seeds
        )
        return {key_of(config): {} for config, _ in asked} | found

    def train_wanted(self, wanted: Iterable[Wanted]) -> Trained:
        """Trains as `train` does, each from its own weights where it has some.

        One whose weights are to be kept and are not there, or damaged, is trained again.
        """
        found: Trained = {}
        groups: dict[str, dict[tuple[str, int], Wanted]] = {}
        known: Trained = {}
        total = 0
        for one in wanted:
            key, seed = one.key, one.seed
            if key not in known:
                known[key] = self._failed.get(key, {}) | self._known(key)
            own = found.setdefault(key, {})
            total += seed not in own
            if seed in known[key] and self._has_weights(one, known[key][seed]):
                own[seed] = known[key][seed]
            elif seed not in own:
                group = f"{configs.fingerprint(one.config)}-{sorted(floats_of(one.config))}"
                group += f"-{one.start is not None}-{one.own_fold}"
                groups.setdefault(group, {})[key, seed] = one
        if groups and not self._late():
            self._train(groups, found, total)
        return found

    def _has_weights(self, one: Wanted, training: Training) -> bool:
        if not one.keep or training.status not in ENDED_WELL:
            return True
        return weights_file.is_whole(self.weights_of(one.key, one.seed))

    def check_fits(self, named: Mapping[str, configs.AnyConfig]) -> None:
        """Checks that configs fitted in memory, without which nothing can be said.

        Raises:
          UserError: one did not.
        """
        for name, config in named.items():
            reason = self.left_out.get(key_of(config))
            if reason is not None:
                raise UserError(
                    f"{name} {reason.rstrip('.')}. {LESS_MEMORY} What was trained is kept in "
                    f"{self.workdir}; the same command tries again."
                )

    def _late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline

    def _start(self) -> Executor:
        if self._executor is None:
            where = self.workers_on, self.workdir
            self._executor = Executor.start(WORKER, self.workers, self.deadline, *where)
        self._executor.deadline = self.deadline
        return self._executor

    def _train(
        self,
        groups: Mapping[str, Mapping[tuple[str, int], Wanted]],
        found: Trained,
        total: int,
    ) -> None:
        """Trains populations of each structure and keeps what they come to."""
        executor = self._start()
        width = WIDTH_CPU if executor.wait_ready() == "cpu" else WIDTH_ACCELERATOR
        asked: dict[int, list[Wanted]] = {}
        for group, some in groups.items():
            trainings = list(some.values())
            size = population_size(len(trainings), self.count, width)
            for first in range(0, len(trainings), size):
                own = trainings[first : first + size]
                # one config for all: workers know a structure by it, whatever floats it has
                base = self._bases.setdefault(group, trainings[0].config)
                task = executor.submit(self._population(base, own, width), group)
                asked[task.number] = own
        while executor.busy:
            if self.should_stop():
                executor.stop()
                for received in executor.drain():
                    self._take(received, asked, found)
                raise self._interrupted()
            if executor.late:
                executor.stop()  # what runs is kept as far as it has come
            received_ = executor.receive(0.1)
            if received_ is not None:
                self._take(received_, asked, found)
                if self.on_progress:
                    self.on_progress(sum(map(len, found.values())), total)

    def _population(
        self, config: configs.AnyConfig, wanted: Sequence[Wanted], width: int
    ) -> TrainPopulation:
        base = configs.to_dict(config)
        folds = None if wanted[0].own_fold else base["data"]["folds"]
        names = [f"{one.key}-{one.seed}" for one in wanted]
        folder = hashlib.sha256("|".join(names).encode()).hexdigest()[:16]
        return TrainPopulation(
            config=base,
            trials=[
                Trial(
                    index,
                    one.seed,
                    one.seed % folds if folds else None,
                    floats_of(one.config),
                    None if one.start is None else str(one.start.absolute()),
                    str(self.weights_of(one.key, one.seed).absolute()) if one.keep else None,
                )
                for index, one in enumerate(wanted)
            ],
            folds=list(range(folds)) if folds else None,
            width=width,
            directory=str((self.workdir / POPULATIONS / folder).absolute()),
        )

    def _take(self, received: Received, asked: Mapping[int, list[Wanted]], found: Trained) -> None:
        """Keeps what a population came to."""
        task, message = received
        request = task.request
        assert isinstance(request, TrainPopulation)
        if isinstance(message, PopulationTrained):
            ended = [
                (trial.number, training_of(trial, message))
                for trial in message.trials
                if trial.status != RUNNING
            ]
        elif isinstance(message, Failed) and message.kind == NO_MEMORY:
            for one in asked[task.number]:
                self.left_out[one.key] = message.message
            return
        elif isinstance(message, Failed):
            ended = [
                (trial.number, failed_training(trial.seed, message)) for trial in request.trials
            ]
        else:
            return
        for index, one in enumerate(asked[task.number]):
            own = [training for number, training in ended if number == index]
            if own:
                self._note(one, own)
                self.trained += len(own)
                found[one.key].update({training.seed: training for training in own})
        if len(ended) == len(request.trials):
            shutil.rmtree(request.directory, ignore_errors=True)

    def _note(self, one: Wanted, own: Sequence[Training]) -> None:
        """Keeps trainings; one that failed only for this call: why may be gone at the next."""
        failed = [training for training in own if training.status == FAILED]
        ended = [training for training in own if training.status != FAILED]
        self._failed.setdefault(one.key, {}).update({f.seed: f for f in failed})
        if ended:
            self.keep(one, ended)

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"interrupted; what was trained is kept in {self.workdir}. The same command goes on "
            "from there."
        )

    # --- runs ------------------------------------------------------------------------------------

    def runs(self, wanted: Mapping[Path, configs.AnyConfig]) -> dict[Path, dict[str, Any]]:
        """Trains configs by `fit`, each in a run's directory; returns their ``result.json``.

        A run that is there already is not trained again. One that fails or diverges has a record
        with ``status`` and ``reason`` alone; it is left out if it did not fit in memory.

        Args:
          wanted: configs by directory; the seed is the config's own.

        Raises:
          Interrupted: ``should_stop()`` said so; what was finished is kept.
          UserError: the environment failed.
        """
        executor = self._start()
        places = {
            executor.submit(TrainRun(configs.to_dict(config), str(place.absolute()))).number: place
            for place, config in wanted.items()
        }
        found: dict[Path, dict[str, Any]] = {}
        while executor.busy:
            if self.should_stop():
                raise self._interrupted()
            received = executor.receive(0.1)
            if received is None:
                continue
            place, message = places[received.task.number], received.message
            if isinstance(message, RunTrained):
                found[place] = message.record
            elif isinstance(message, Failed):
                status = {DIVERGED: DIVERGED, NO_MEMORY: "left out"}.get(message.kind, FAILED)
                found[place] = {"status": status, "reason": message.message}
        return found
