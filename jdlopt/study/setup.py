"""How a study is set up: its directory is claimed, its config and space are checked by workers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.config import Value
from jdlopt.data.notes import Note
from jdlopt.errors import UserError, WorkdirError
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import CheckStudy
from jdlopt.study import curves, records, schema
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import Planned, completed, first_points
from jdlopt.study.options import Options

STUDY, BEST, TRIALS, POPULATIONS = "study.json", "best_config.json", "trials", "populations"
TRACED = ("model.", "loss.", "optim.", "data.augment.")
"""How the keys begin whose floats are traced."""
LOCK = ".finishing"
"""Held by the coordinator that ends a study."""
MOST_POINTS = 10_000
"""Points that a grid may have."""


class OutsideWarning(UserWarning):
    """The base config does not wholly lie in the space that is searched around it."""


class StudyResult(NamedTuple):
    """What a study came to: the content of ``study.json``, and where it lies."""

    record: dict[str, Any]
    workdir: Path


class StudyProgress(NamedTuple):
    """What a progress display shows.

    Attributes:
      done, running, pruned, infeasible: trials.
      left_out: trials that did not fit in memory.
      trials: how many there will be, if that is known.
      best: the best trial's number and value, or None.
      improved: whether it is new.
      seconds_left: about how long it will take, if that is known.
    """

    done: int
    running: int
    pruned: int
    infeasible: int
    left_out: int
    trials: int | None
    best: tuple[int, float] | None
    improved: bool
    seconds_left: float | None


def claim(workdir: Path, storage: str | None = None) -> None:
    """Makes the directory, or checks that a study may go on in it.

    Raises:
      WorkdirError: it holds a run, or files that are not a study's; or it can't be written.
    """
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"--workdir: {workdir} is a file; name a directory.")
    try:
        writing.make_folder(workdir)
        probe = workdir / ".writable"
        with writing.lock_file(probe):
            probe.unlink(missing_ok=True)
        there = {path.name for path in workdir.iterdir()}
    except OSError as error:
        raise WorkdirError(
            f"--workdir: {workdir} can't be written: {error.strerror}. Choose another."
        ) from error
    if "config.json" in there and STUDY not in there:
        raise WorkdirError(
            f"--workdir: {workdir} is a run's directory, not a study's; choose another."
        )
    pipes = sorted(name for name in there & {STUDY, "study.db"} if not (workdir / name).is_file())
    if pipes:
        raise WorkdirError(f"--workdir: {workdir / pipes[0]} is no file; choose another.")
    databases = [path for path in there if path.startswith("study.db")]
    writing.refuse_links(workdir, *databases, LOCK, TRIALS, POPULATIONS, curves.PARTS)
    known = {STUDY, "study.db", "study.db-wal", "study.db-shm", "study.db-journal", BEST, TRIALS,
             POPULATIONS, curves.CURVES, curves.PARTS, "report.html"}  # fmt: skip
    if storage is not None:
        known |= {name for name in there if name.startswith(Path(storage).name)}
    strange = sorted(name for name in there - known if not name.startswith("."))
    if strange and STUDY not in there and "study.db" not in there:
        raise WorkdirError(f"--workdir: {workdir} holds {strange[0]} but no study; choose another.")
    database = workdir / "study.db"
    if storage is None and not (database.exists() and database.stat().st_size):
        check_whole(workdir, set())


def check_whole(workdir: Path, finished: set[int], storage: str | None = None) -> None:
    """Checks that a storage still has the trials that ``study.json`` tells of.

    One that was lost would be taken for a new study's, whose record would overwrite the old one's.

    Args:
      workdir: the study's directory.
      finished: the numbers of the storage's finished trials that have a record.
      storage: its URL, if it is not in the directory.

    Raises:
      WorkdirError: it lacks some.
    """
    path, where = workdir / STUDY, "study.db" if storage is None else "the --storage"
    choices = (
        f"Put {where} back (study.db-wal belongs to a study.db), or move study.json away to begin "
        "anew in the same directory, or choose another --workdir."
    )
    if not os.path.lexists(path):
        return
    try:
        rows = schema.read_object(path)["trials"]
        ended = [row for row in rows if row["state"] in records.STATES]
        told = {int(row["number"]) for row in ended if row.get("reason") != records.FOREIGN}
    except (WorkdirError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        if finished:
            return  # it is written again from the storage
        raise WorkdirError(
            f"--workdir: {path} is damaged, and {where} has no finished trial that it could be "
            f"written from. {choices}"
        ) from error
    lost = sorted(told - finished)
    if lost:
        raise WorkdirError(
            f"--workdir: {path} tells of {len(told):,} finished trials, {len(lost):,} of which are "
            f"not in {where} (trial {lost[0]} is the first): it was lost or emptied, or is another "
            f"study's. {choices}"
        )


def traced_keys(space: spaces.Space) -> set[str]:
    """Returns the keys whose values are traced: they need no program of their own."""
    return {
        key
        for key, one in space.items()
        if key.startswith(TRACED)
        and (
            one.kind in ("uniform", "log_uniform")
            or (one.kind == "choice" and all(type(v) is float for v in one.choices))
        )
    }


@dataclass(frozen=True)
class Setup:
    """What a study is, checked.

    Attributes:
      config: the base experiment; ``resolved`` with all its defaults.
      references: keys of it that follow others.
      space: what is searched; ``traced`` are its keys that need no program of their own.
      workdir, options: as `tune` was given them.
      objectives: name and direction of each.
      monitor: the metric that decides which evaluation of a training is best.
      seed: of the config.
      first: the points that are trained before those of the sampler.
      grid: all points, where the sampler is the grid: ``first`` comes first.
      platform, devices: what the workers train on.
      versions: of the libraries.
      data: what tells the data from others, see `jdlopt.train.data_record`.
      notes: what was left out, changed or guessed of them.
      weights: which ones trials start from, in words; empty where from random ones.
    """

    config: dict[str, Any]
    references: configs.References
    resolved: dict[str, Any]
    space: spaces.Space
    traced: frozenset[str]
    workdir: Path
    options: Options
    objectives: list[dict[str, str]]
    monitor: str
    seed: int
    first: tuple[Planned, ...]
    grid: list[dict[str, Value]] | None
    platform: str
    devices: list[str]
    versions: dict[str, str]
    data: dict[str, Any]
    notes: tuple[Note, ...] = ()
    weights: str = ""

    @property
    def limit(self) -> int | None:
        """How many trials the study will have; None if only time or a goal ends it."""
        asked = self.options.trials
        if self.grid is None:
            return asked
        return len(self.grid) if asked is None else min(asked, len(self.grid))

    @property
    def definition(self) -> dict[str, Any]:
        """What makes another study of it."""
        known = {
            "config": self.config,
            "space": spaces.to_json(self.space),
            "objectives": self.objectives,
            **self.options.definition(),
        }
        if self.grid is not None and self.first:  # its points are known by their numbers
            known["enqueued"] = [one.values for one in self.first]
        return known

    @property
    def width(self) -> int:
        """Trials that a population's programs are compiled for, one a seed and fold."""
        if self.options.width:
            return self.options.width
        if self.platform != "cpu":
            return 32
        return 18 if self.options.halving else 8

    def structural(self, point: Mapping[str, Value]) -> dict[str, object]:
        """Returns the values of a point, and what follows them, that need their own program."""
        return {key: v for key, v in self._all(point).items() if not self._is_traced(key, v)}

    def floats(self, point: Mapping[str, Value]) -> dict[str, float]:
        """Returns the values of a point, and what follows them, that are traced."""
        return {key: v for key, v in self._all(point).items() if self._is_traced(key, v)}

    def _all(self, point: Mapping[str, Value]) -> dict[str, Any]:
        return self.references.following(point)

    def _is_traced(self, key: str, value: object) -> bool:
        if key in self.space:
            return key in self.traced
        return type(value) is float and key.startswith(TRACED)

    def config_of(self, point: Mapping[str, Value]) -> dict[str, Any]:
        """Returns the config that trains a point as a run."""
        return self.changed({**self._all(point), "seed": self.seed})

    def changed(self, values: Mapping[str, object]) -> dict[str, Any]:
        """Returns the base config with values, without keys of a part that another one replaces."""
        found = configs.override(self.config, values)
        if not any(key.endswith(".name") for key in values):
            return configs.to_dict(found)
        from jdlopt.train.schema import schema_of

        tree = configs.to_dict(found)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told where the study was checked
            return configs.settled(tree, schema_of(tree, []))


def set_up(
    config: dict[str, object],
    texts: dict[str, str],
    references: configs.References,
    space: spaces.Space,
    workdir: Path,
    options: Options,
    executor: Executor,
) -> Setup:
    """Has the workers check everything.

    Args:
      config: the base experiment; ``texts`` are overrides whose types only its schema knows.
      references: of its keys to each other.
      space: what is searched.
      workdir, options: as `tune` was given them.
      executor: just started.

    Raises:
      ConfigError, UserError: the input is wrong.
    """
    import pyarrow.parquet  # noqa: F401  # a second, while the workers start as well

    traced, goal = traced_keys(space), options.goal()
    if options.folds is not None:
        config = configs.to_dict(
            configs.override(config, {"data.folds": options.folds, "data.fold": 0})
        )
    found = executor.check(
        CheckStudy(
            config=config,
            overrides=texts,
            space=spaces.to_json(space),
            traced=sorted(traced),
            folds=list(range(options.folds or 0)) or None,
            objectives=list(options.objectives),
            goal=None if goal is None else goal[0],
        )
    )
    objectives = [{"name": name, "direction": way} for name, way in found.directions.items()]
    if found.seed + options.repeats - 1 > configs.LARGEST_SEED:
        raise UserError(
            f"--repeats: trains each trial with seed={found.seed:,} and the {options.repeats - 1} "
            f"after it; a seed is at most {configs.LARGEST_SEED:,}. Set a smaller --config.seed."
        )
    if options.halving and len(objectives) > 1:
        raise UserError("--halving: compares by one objective; there are several here.")
    first, said = first_points(space, found.base, options.enqueue, options.base)
    if said:
        warnings.warn(said, OutsideWarning, stacklevel=3)
    grid = _grid(space, options, first)
    if grid is not None and options.trials is None:
        options = options.replaced(trials=len(grid))
    return Setup(
        config=configs.to_dict(found.config),
        references=references,
        resolved=found.resolved,
        space=space,
        traced=frozenset(traced),
        workdir=workdir,
        options=options,
        objectives=objectives,
        monitor=found.monitor,
        seed=found.seed,
        first=tuple(first),
        grid=grid,
        platform=executor.platform,
        devices=executor.devices,
        versions=found.versions,
        data=found.data,
        notes=tuple(Note.from_dict(one) for one in found.notes),
        weights=found.weights,
    )


def _grid(
    space: spaces.Space, options: Options, first: Sequence[Planned]
) -> list[dict[str, Value]] | None:
    """All points of a grid, those that are asked for first and no other twice."""
    if options.sampler != "grid":
        return None
    found = [completed(space, one, options.seed) for one in first]
    known = {repr(sorted(point.items())) for point in found}
    for point in spaces.points(space):
        if repr(sorted(point.items())) not in known:
            found.append(point)
        if len(found) > MOST_POINTS:
            raise UserError(
                f"--sampler=grid: the space has more than {MOST_POINTS:,} points; use fewer "
                "values or keys, or another sampler."
            )
    return found
