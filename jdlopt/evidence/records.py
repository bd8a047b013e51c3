"""The directories of comparisons: whose they are, of which data, and the records in them."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

from jdlopt import writing
from jdlopt.data.dataset import Dataset
from jdlopt.errors import WorkdirError
from jdlopt.study.known_data import ChangedDataWarning
from jdlopt.train import data_record, disk

TRAININGS, POPULATIONS, RUNS, WEIGHTS = "trainings", "populations", "runs", "weights"
"""What a directory holds beside its record: trainings by config and seed, those that are not ended,
whole runs, and weights of trainings."""


def claim(workdir: Path, name: str, what: Mapping[str, object]) -> None:
    """Makes a directory for something of these configs, or checks that it is theirs.

    Args:
      workdir: the directory.
      name: of the record in it.
      what: keys of configs, or other JSON, that must be as in the record.

    Raises:
      WorkdirError: it holds something else.
    """
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"--workdir: {workdir} is a file; name a directory.")
    beside = workdir / f".{name}.of"
    there = [path.name for path in workdir.iterdir()] if workdir.exists() else []
    strange = [one for one in there if one in ("config.json", "study.json", "study.db")]
    if strange:
        raise WorkdirError(
            f"--workdir: {workdir} holds {strange[0]}, a run's or a study's; choose another."
        )
    text = json.dumps(what, sort_keys=True)
    try:
        writing.make_folder(workdir)
        if not beside.exists():
            writing.write_aside(beside, text)
    except OSError as error:
        raise WorkdirError(
            f"--workdir: {workdir} can't be written: {error.strerror}. Choose another."
        ) from error
    if not beside.is_file() or beside.read_bytes() != text.encode():
        raise WorkdirError(
            f"--workdir: {workdir} is about other configs or options; choose another directory, "
            "or give the same ones to go on there."
        )


def is_of_other_data(workdir: Path, dataset: Dataset, changed_data: str) -> bool:
    """Says whether a directory is about other data than those that are there now.

    Args:
      workdir: the directory; see `keep_data`.
      dataset: of what is compared, as it is opened now.
      changed_data: ``refuse``, or ``ok``, which takes other data.

    Raises:
      WorkdirError: it is, and ``changed_data`` is ``refuse``.
    """
    before = data_record.read(workdir / data_record.DATA)
    if before is None:
        return False
    changes = data_record.differences(before, data_record.fingerprint(dataset))
    if changes and changed_data != "ok":
        raise WorkdirError(
            f"--workdir: what lies in {workdir} was trained on other data in "
            f"{dataset.spec.source!r}:\n{changes}\nTrainings on other data can't be compared with "
            "it. Bring the old data back, or choose another --workdir; --changed-data=ok "
            "(changed_data='ok') puts the old trainings aside and trains on what is there now."
        )
    return bool(changes)


def keep_data(workdir: Path, dataset: Dataset, changed: bool) -> None:
    """Writes down which data a directory is about; trainings on others are put aside.

    Args:
      workdir: the directory, which is this process's.
      dataset: of what is compared.
      changed: what `is_of_other_data` said.

    Raises:
      WorkdirError: it can't be written.
    """
    try:
        if changed:
            _put_aside(workdir, dataset.spec.source)
        if changed or not (workdir / data_record.DATA).exists():
            text = json.dumps(data_record.fingerprint(dataset), indent=2) + "\n"
            writing.write_aside(workdir / data_record.DATA, text)
    except OSError as error:
        raise WorkdirError(
            f"{workdir}: can't be written: {disk.reason(workdir, error)}."
        ) from error


def _put_aside(workdir: Path, source: str) -> None:
    taken = {path.name for path in workdir.iterdir()}
    place = next(n for n in itertools.count(1) if f"{TRAININGS}-{n}" not in taken)
    for name in (TRAININGS, RUNS, WEIGHTS):
        if name in taken:
            (workdir / name).rename(workdir / f"{name}-{place}")
    shutil.rmtree(workdir / POPULATIONS, ignore_errors=True)  # begun on the old data
    writing.make_folder(workdir / TRAININGS)
    warnings.warn(
        f"the data in {source!r} are not those of before: what was trained on those lies in "
        f"{workdir / f'{TRAININGS}-{place}'} and does not count.",
        ChangedDataWarning,
        stacklevel=4,
    )


def save(path: Path, record: Mapping[str, object]) -> None:
    """Writes a record beside its final name and renames it.

    Raises:
      WorkdirError: it can't be written.
    """
    try:
        writing.write_aside(path, json.dumps(disk.as_json(record), indent=2) + "\n")
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error
