"""The directories of comparisons: whose they are, and the records in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jdlopt import writing
from jdlopt.errors import WorkdirError
from jdlopt.train import disk


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


def save(path: Path, record: Mapping[str, object]) -> None:
    """Writes a record beside its final name and renames it.

    Raises:
      WorkdirError: it can't be written.
    """
    try:
        writing.write_aside(path, json.dumps(disk.as_json(record), indent=2) + "\n")
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error
