"""A run's records: its directory, ``metrics.jsonl`` and what else logs its values."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import io
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt import writing
from jdlopt.data import from_run
from jdlopt.errors import WorkdirError, differences, listing
from jdlopt.train import checkpoint, disk
from jdlopt.train.loggers import background
from jdlopt.train.loggers.logger import Opening

CONFIG, INPUTS = from_run.CONFIG, from_run.INPUTS
METRICS, RESULT, LOCK = "metrics.jsonl", "result.json", ".lock"
PRETRAINED, TEACHERS = "pretrained.json", "teachers.json"
CHECKPOINTS = "checkpoints"
FOLDERS = (CHECKPOINTS, "tensorboard")
"""What is written into, and holds no links."""
LENGTH = ("train.epochs", "train.steps")
"""The keys of a run that may grow: a finished one is then trained further."""
BEFORE: dict[str, object] = {"data.preprocess.target_scale": None, "data.fit_on": "train"}
"""What a run trained with whose jdlopt did not have a key yet, where that is not its default."""
FREE = ("mesh.", "data.workers", "train.loggers", "train.tensorboard", "train.hang_seconds",
        "train.remote")  # fmt: skip
"""How keys begin that change nothing of what is trained: where, who reads, where it is logged."""


def write_aside(path: Path, text: str) -> None:
    """Writes a file beside its final name and renames it, so that nobody reads half of it.

    Raises:
      WorkdirError: it can't be written; what was there before is as it was.
    """
    with _told(path):
        writing.write_aside(path, text)


def _unwritable(path: Path, error: OSError) -> WorkdirError:
    return WorkdirError(
        f"{path}: can't be written: {disk.reason(path, error)}. "
        f"{checkpoint.held(path.parent / CHECKPOINTS)} {checkpoint.GO_ON}"
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns a write that fails into a message."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def claim(workdir: Path, config: configs.AnyConfig) -> Iterator[None]:
    """Holds a work directory for one run: makes it, locks it, and checks that it is this config's.

    Raises:
      WorkdirError: it holds another config's run, another process trains there, it is no
        directory, or it can't be written.
    """
    try:
        writing.make_folder(workdir)
        lock = writing.lock_file(workdir / LOCK)
    except (FileExistsError, NotADirectoryError) as error:
        raise WorkdirError(
            f"--workdir: {workdir} is a file, or lies below one; name a directory."
        ) from error
    except OSError as error:
        raise WorkdirError(
            f"--workdir: {workdir} can't be written: {error.strerror}. Choose another directory."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkdirError(f"--workdir: another process is training in {workdir}.") from error
        writing.refuse_links(workdir, *FOLDERS)
        path = workdir / CONFIG
        if path.exists():
            _check_same(path, config, workdir)
        else:
            strangers = [
                name
                for name in (METRICS, RESULT, CHECKPOINTS, "study.db")
                if (workdir / name).exists()
            ]
            if strangers:
                raise WorkdirError(
                    f"--workdir: {workdir} holds {strangers[0]} but no {CONFIG}: it is not a run's "
                    "directory; choose another."
                )
            save_config(workdir, config)
        yield


def save_config(workdir: Path, config: configs.AnyConfig) -> None:
    """Writes ``config.json``."""
    write_aside(workdir / CONFIG, configs.dumps(config))


def save_pretrained(workdir: Path, record: Mapping[str, object]) -> None:
    """Writes ``pretrained.json``: which weights a run starts from.

    Raises:
      WorkdirError: the run in the directory began with other weights, or it can't be written.
    """
    before = (began_with(workdir) or {}).get("sha256")
    if before is not None and before != record["sha256"]:
        raise WorkdirError(
            f"--workdir: the run in {workdir} began with other weights: '{record['file']}' has "
            "changed since. Choose another directory, or bring the old file back."
        )
    write_aside(workdir / PRETRAINED, json.dumps(record, indent=2) + "\n")


def save_teachers(workdir: Path, runs: Sequence[Mapping[str, str]]) -> None:
    """Writes ``teachers.json``: which checkpoints of which runs a run learns from.

    Raises:
      WorkdirError: the run in the directory learnt from others, or it can't be written.
    """
    for before, now in zip(taught_by(workdir), runs):
        if before != now:
            raise WorkdirError(
                f"--workdir: the run in {workdir} learns from another teacher: '{now['run']}' has "
                "changed since. Choose another directory, or bring the old teacher back."
            )
    write_aside(workdir / TEACHERS, json.dumps({"runs": list(runs)}, indent=2) + "\n")


def began_with(workdir: Path | None) -> dict[str, Any] | None:
    """Returns what a run's ``pretrained.json`` says, if it has one."""
    return None if workdir is None else disk.read_object(workdir / PRETRAINED)


def taught_by(workdir: Path | None) -> list[dict[str, str]]:
    """Returns what a run's ``teachers.json`` says; nothing if it has none."""
    found = {} if workdir is None else disk.read_object(workdir / TEACHERS)
    return list((found or {}).get("runs", ()))


def saved_config(path: Path) -> dict[str, Any]:
    """Returns a directory's ``config.json``, with what keys stood for before there were any.

    Raises:
      ConfigError: it can't be read.
    """
    config = configs.to_dict(configs.load(path))
    for key, value in BEFORE.items():
        *sections, last = key.split(".")
        node: Any = config
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(last, value)
    return config


def identity(config: configs.AnyConfig) -> dict[str, Any]:
    """Returns what of a resolved config says which run it is, by dotted key."""
    return {
        key: value
        for key, value in configs.flat(config).items()
        if not key.startswith(FREE) and key not in LENGTH
    }


def _check_same(path: Path, config: configs.AnyConfig, workdir: Path) -> None:
    # the length may change as well, as long as there is something left to train
    saved, now = (identity(one) for one in (saved_config(path), config))
    changed = differences(saved, now)
    if not changed:
        return
    new = sorted(now.keys() - saved.keys())
    if new and not differences(saved, {key: now[key] for key in now if key in saved}):
        raise WorkdirError(
            f"--workdir: the run in {workdir} was saved by another version of jdlopt, which had no "
            f"{listing(new)}: whether it was the same training can't be known. `jdlopt eval` and "
            "`jdlopt predict` still take it; to go on, use that version, or train anew in another "
            "--workdir."
        )
    raise WorkdirError(
        f"--workdir: {workdir} holds a run of another config:\n{changed}\n"
        "Choose another --workdir, or use the same config to go on with that run."
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a ``metrics.jsonl``; what follows a line that was cut short is left out.

    Raises:
      WorkdirError: it is no file of text.
    """
    lines: list[dict[str, Any]] = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise WorkdirError(f"{path}: can't be read: {error}. Move it away.") from error
    for text in texts:
        try:
            line = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            break
        if not isinstance(line, dict) or "step" not in line:
            break
        lines.append(line)
    return lines


class RunLog:
    """The open logs of a run: one JSON line a logged step, and the loggers of its config."""

    def __init__(self, workdir: Path, step: int, names: Sequence[str], config: configs.AnyConfig):
        """Opens them to go on after ``step``; lines beyond it are dropped.

        Args:
          workdir: the run's directory.
          step: where it goes on; 0 where it begins.
          names: of the loggers.
          config: the resolved config.
        """
        path = workdir / METRICS
        kept = [line for line in read_lines(path) if line["step"] <= step]
        write_aside(path, "".join(json.dumps(line) + "\n" for line in kept))
        lines = writing.appended(path)
        self._path = path
        self._file = io.TextIOWrapper(lines, encoding="utf-8", line_buffering=True)
        opening = Opening(workdir, _shown(workdir), configs.to_dict(config), step)
        self.loggers = background.Loggers(names, opening)

    def write(self, step: int, values: Mapping[str, float], beside: Mapping[str, float]) -> None:
        """Logs the values of a step; those of ``beside`` (timings) go to the loggers alone.

        So two runs of one config write the same ``metrics.jsonl`` to the byte.
        """
        with _told(self._path):
            self._file.write(json.dumps(disk.as_json({"step": step, **values})) + "\n")
        self.loggers.log(step, {**values, **beside})

    def flush(self) -> None:
        """Hands everything written so far to the disk."""
        with _told(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self.loggers.flush()

    def close(self) -> None:
        """Closes the files; what must not be lost was flushed before."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.loggers.end("failed", {})  # nothing, where the run has told its end


def _shown(workdir: Path) -> str:
    """Returns a directory as it is seen from the working directory, if it lies below."""
    place, here = workdir.absolute(), Path.cwd()
    return place.relative_to(here).as_posix() if place.is_relative_to(here) else place.name


def versions() -> dict[str, str]:
    """Returns the versions of what a result depends on."""
    names = ("jdlopt", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
