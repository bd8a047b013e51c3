"""What a run came to: the content of ``result.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jdlopt.errors import WorkdirError
from jdlopt.train import disk, log

KINDS: dict[str, type] = {"status": str, "steps": int, "metrics": dict, "best": dict}
WORDS = {str: "a text", int: "a whole number", dict: "an object"}


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Returns a run's ``result.json``, or None if there is none.

    Raises:
      WorkdirError: it is there and can't be read.
    """
    path = workdir / log.RESULT
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path}: can't be read: {error}") from error
    if not isinstance(record, dict) or "status" not in record:
        raise WorkdirError(f"{path}: is no result of a run; move it away to train here.")
    for name, kind in KINDS.items():
        if name in record and (not isinstance(record[name], kind) or record[name] is True):
            raise WorkdirError(
                f"{path}: is damaged: {name} is {record[name]!r:.60}, expected "
                f"{WORDS[kind]}. The run's checkpoints are not concerned: move it away, and the "
                "same `jdlopt train` command writes it again."
            )
    return record


def write_result(workdir: Path | None, record: Mapping[str, object]) -> dict[str, Any]:
    """Writes ``result.json``, from the first process; returns the record as it is read back.

    Args:
      workdir: the run's directory; None writes nothing.
      record: what the run came to.

    Raises:
      WorkdirError: it can't be written.
    """
    written: dict[str, Any] = disk.as_json(record)
    if workdir is not None and jax.process_index() == 0:
        log.write_aside(workdir / log.RESULT, json.dumps(written, indent=2) + "\n")
    return written
