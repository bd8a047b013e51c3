"""What directories hold, read as what anybody may have written: checked before use."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import UndefinedError

from jdlopt.errors import ConfigError, WorkdirError, listing
from jdlopt.study import curves
from jdlopt.study.space import from_row

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]
"""An object of JSON."""
STATES = ("done", "pruned", "infeasible", "running")
PARTS = {
    "status": str,
    "trials": list,
    "objectives": list,
    "space": list,
    "config": dict,
    "structures": dict,
    "time": dict,
    "versions": dict,
}
TIMES = ("wall_seconds", "training_seconds", "compile_seconds", "outside_share", "workers")
AGAIN = "The same command writes it again."


def read(path: Path, needed: Mapping[str, type], hint: str = AGAIN) -> dict[str, Any]:
    """Returns a record, checked for the parts that a report needs.

    Args:
      path: a file of JSON.
      needed: the type of each part.
      hint: how to get the file back.

    Raises:
      WorkdirError: it can't be read, or is not as jdlopt writes it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise WorkdirError(f"{path}: is damaged: {error}. {hint}") from error
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise _wrong(path, f"expected an object, found {kind}", hint)
    wrong = [name for name, kind in needed.items() if not isinstance(record.get(name), kind)]
    if wrong:
        raise _wrong(path, f"{listing(wrong)}: missing, or of another type", hint)
    return record


def _wrong(path: Path, what: str, hint: str) -> WorkdirError:
    return WorkdirError(f"{path}: is not as jdlopt writes it: {what}. {hint}")


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Turns what a record lacks, where a page is made of it, into a message.

    Raises:
      WorkdirError: the record is not as jdlopt writes it.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, UndefinedError) as error:
        raise _wrong(path, repr(error), AGAIN) from error


# --- studies --------------------------------------------------------------------------------------


def read_study(workdir: Path) -> dict[str, object]:
    """Returns the content of ``study.json``.

    Raises:
      WorkdirError: it can't be read, or is not as jdlopt writes it.
    """
    path = workdir / "study.json"
    hint = "The same `jdlopt tune` command writes it again from the study's storage."
    study = read(path, PARTS, hint)
    problems = _problems(study)
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise _wrong(path, "; ".join(problems[:3]) + more, hint)
    return study


def read_curves(workdir: Path) -> tuple[pd.DataFrame, str]:
    """Returns the trials' curves, and what is wrong with the files, if anything.

    A damaged file costs its curves, not the report.
    """
    table, damaged = curves.read(workdir)
    if not damaged:
        return table, ""
    names = listing([path.name for path in damaged])
    reason = next(iter(damaged.values()))
    lost = "Some curves are missing" if len(table) else "There are no curves"
    return table, f"{lost}: {names} can't be read: {reason}."


def _problems(study: Record) -> list[str]:
    problems = []
    for name in ("data", "model"):
        if not isinstance(study["config"].get(name), dict):
            problems.append(f"config.{name}: is no section")
    problems += [
        f"time.{name}: is no number" for name in TIMES if not _is_number(study["time"].get(name))
    ]
    if not study["objectives"]:
        problems.append("objectives: there are none")
    for one in study["objectives"]:
        known = isinstance(one, dict) and one.get("direction") in ("maximize", "minimize")
        if not known or not isinstance(one.get("name"), str):
            problems.append(f"objectives: {one!r:.80} is none")
    problems += [f"space: {row!r:.80} is none" for row in study["space"] if not _is_row(row)]
    if not all(isinstance(one, dict) for one in study["structures"].values()):
        problems.append("structures: one is no object")
    if problems:
        return problems
    rows = {row["key"]: row for row in study["space"]}
    count = len(study["objectives"])
    return [
        f"trials: {trial!r:.80} is none"
        for trial in study["trials"]
        if not _is_trial(trial, rows, count)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_row(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        return False
    try:
        one = from_row(row)
    except (ConfigError, TypeError, KeyError):
        return False
    return one.low is None or one.low > 0 or not row.get("log")


def _is_trial(trial: object, rows: Mapping[str, Record], objectives: int) -> bool:
    if not isinstance(trial, dict) or trial.get("state") not in STATES:
        return False
    if not isinstance(trial.get("number"), int) or not isinstance(trial.get("params"), dict):
        return False
    if not all(key in rows and _fits(rows[key], value) for key, value in trial["params"].items()):
        return False
    values = trial.setdefault("values", None)
    if values is not None:
        if not isinstance(values, list) or len(values) != objectives:
            return False
        if not all(_is_number(value) for value in values):
            return False
    trainings = trial.get("trainings")
    return trainings is None or (
        isinstance(trainings, list) and all(isinstance(one, dict) for one in trainings)
    )


def _fits(row: Record, value: object) -> bool:
    if row["kind"] == "choice":
        return value in row["choices"]
    return _is_number(value) and row["low"] <= value <= row["high"]
