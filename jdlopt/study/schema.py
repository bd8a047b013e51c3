"""What a study's records hold, whoever has written them: the one schema, checked before use.

``study.json`` and the storage hold the same record of a trial; what is wrong with one is said in
the same words wherever it is read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jdlopt.errors import ConfigError, WorkdirError
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.records import LEFT_OUT, STATES, Record

Holds = Callable[[object], bool]
"""Says whether a value is one of a kind."""
UNFINISHED = ("running", LEFT_OUT)
"""States of trials in ``study.json`` that the storage holds no record of."""
PARTS: Mapping[str, type] = {
    "status": str, "trials": list, "objectives": list, "space": list, "config": dict,
    "structures": dict, "time": dict, "versions": dict,
}  # fmt: skip
TIMES = ("wall_seconds", "training_seconds", "compile_seconds", "outside_share", "workers")
AGAIN = "The same command writes it again."
FROM_STORAGE = "The same `jdlopt tune` command writes it again from the study's storage."
SHOWN = 3
"""Problems that are said; the rest are counted."""


# --- values ---------------------------------------------------------------------------------------


def is_number(value: object) -> bool:
    """Says whether a value is a finite number, and no truth value.

    Example:
      >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number(10**400)
      (True, False, False, False)
    """
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def is_whole(value: object) -> bool:
    """Says whether a value is a whole number that 64 bits hold."""
    return type(value) is int and abs(value) < 2**63


def or_none(holds: Holds) -> Holds:
    """Returns what also holds of None."""
    return lambda value: value is None or holds(value)


def is_text(value: object) -> bool:
    """Says whether a value is a text."""
    return isinstance(value, str)


def is_object(value: object) -> bool:
    """Says whether a value is an object of JSON."""
    return isinstance(value, Mapping)


def list_of(holds: Holds, count: int | None = None) -> Holds:
    """Returns what holds of a list, so long if that is given, of each of whose values it holds."""
    return lambda value: (
        isinstance(value, list) and count in (None, len(value)) and all(holds(one) for one in value)
    )


def _is_training(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        name in value and holds(value[name]) for name, holds in TRAINING.items()
    )


def is_metrics(value: object) -> bool:
    """Metrics by name, at the best evaluation: those that are no finite number say so."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and (one is None or type(one) in (int, float))
        for name, one in value.items()
    )


TRAINING: Mapping[str, Holds] = {
    "seed": is_whole,
    "fold": or_none(is_whole),
    "value": or_none(is_number),
    "best_step": or_none(is_whole),
    "last_step": is_whole,
}
"""One training of a trial, a seed and a fold."""
FACTS: Mapping[str, Holds] = {
    "total_steps": or_none(is_whole),
    "n_params": or_none(is_whole),
    "step_seconds": or_none(is_number),
    "seconds": or_none(is_number),
    "structure": or_none(is_text),
}
"""What a trial's record may say besides."""


# --- trials ---------------------------------------------------------------------------------------


def problem(record: object, objectives: int) -> str | None:
    """Returns what is wrong with the record of a trial that has ended; None if it can be used.

    Args:
      record: as a storage or a row of ``study.json`` holds it.
      objectives: how many values it has.

    Example:
      >>> problem({**records.infeasible("x"), "steps": "many"}, 1)
      "steps: 'many'"
    """
    if not isinstance(record, Mapping):
        return f"it is no object: {record!r:.60}"
    fields: dict[str, Holds] = {
        "state": lambda value: value in STATES if isinstance(value, str) else False,
        "values": or_none(list_of(is_number, objectives)),
        "interval": or_none(list_of(list_of(is_number, 2), objectives)),
        "trainings": list_of(_is_training),
        "metrics": is_metrics,
        "steps": is_whole,
        "reason": or_none(is_text),
    }
    for name, holds in fields.items():
        if name not in record:
            return f"{name}: is missing"
        if not holds(record[name]):
            return f"{name}: {record[name]!r:.60}"
    if record["state"] == "done" and record["values"] is None:
        return "values: None"
    for name, holds in FACTS.items():
        if not holds(record.get(name)):
            return f"{name}: {record[name]!r:.60}"
    return None


def _row_problem(row: object, space: spaces.Space, objectives: int) -> str | None:
    """Returns what is wrong with a trial of ``study.json``, its number left out."""
    if not isinstance(row, Mapping):
        return f"it is no object: {row!r:.60}"
    params = row.get("params")
    if not isinstance(params, dict):
        return f"params: {params!r:.60}"
    for key, value in params.items():
        if key not in space or not _is_of(space[key], value):
            return f"params: {key}={value!r:.60} is not in the space"
    if row.get("state") not in UNFINISHED:
        return problem(row, objectives)
    if row.get("values", ()) is not None:
        return f"values: {row.get('values')!r:.60}, of a trial that has not ended"
    return None if or_none(is_text)(row.get("reason")) else f"reason: {row['reason']!r:.60}"


def _is_of(one: spaces.Distribution, value: object) -> bool:
    try:
        return spaces.holds(one, spaces.label(spaces.as_choice(value)))
    except (ConfigError, TypeError, ValueError, RecursionError):
        return False


# --- study.json -----------------------------------------------------------------------------------


def read_object(path: Path, hint: str = AGAIN) -> dict[str, Any]:
    """Returns the JSON object that a file holds.

    Args:
      path: the file.
      hint: how to get it back.

    Raises:
      WorkdirError: it can't be read, or is none.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise WorkdirError(f"{path}: is no file. {hint}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise WorkdirError(f"{path}: is damaged: {error}. {hint}") from error
    if not isinstance(found, dict):
        raise not_as_written(path, f"expected an object, found {type(found).__name__}", hint)
    return found


def not_as_written(path: Path, what: str, hint: str = AGAIN) -> WorkdirError:
    """Returns the error of a record that jdlopt would not have written so."""
    return WorkdirError(f"{path}: is not as jdlopt writes it: {what}. {hint}")


def read_study(workdir: Path) -> dict[str, Any]:
    """Returns the content of ``study.json``, checked.

    Raises:
      WorkdirError: it can't be read, or is not as jdlopt writes it.
    """
    path = workdir / "study.json"
    study = read_object(path, FROM_STORAGE)
    found = study_problems(study)
    if found:
        more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
        raise not_as_written(path, "; ".join(found[:SHOWN]) + more, FROM_STORAGE)
    return study


def study_problems(study: Record) -> list[str]:
    """Returns what is wrong with the content of ``study.json``."""
    wrong = [name for name, kind in PARTS.items() if not isinstance(study.get(name), kind)]
    if wrong:
        return [f"{name}: missing, or of another type" for name in wrong]
    found = [
        f"config.{name}: is no section with {key!r}"
        for name, key in (("data", "source"), ("model", "name"))
        if not isinstance(study["config"].get(name), dict) or key not in study["config"][name]
    ]
    found += [
        f"time.{name}: is no number" for name in TIMES if not is_number(study["time"].get(name))
    ]
    if not all(isinstance(one, dict) for one in study["structures"].values()):
        found.append("structures: one is no object")
    found += _objective_problems(study["objectives"])
    try:
        space = spaces.from_json(study["space"])
    except (ConfigError, TypeError, ValueError, OverflowError, RecursionError) as error:
        return [*found, f"space: {error}".replace("space: space:", "space:").rstrip(".")]
    if len(space) < len(study["space"]):
        found.append("space: a key is there twice")
    if found:
        return found
    found += _trial_problems(study["trials"], space, len(study["objectives"]))
    return found or _order_problems(study)


def _objective_problems(objectives: list[object]) -> list[str]:
    found, names = [], []
    for one in objectives:
        known = isinstance(one, dict) and one.get("direction") in ("maximize", "minimize")
        if not known or not isinstance(one, dict) or not isinstance(one.get("name"), str):
            found.append(f"objectives: {one!r:.80} is none")
        else:
            names.append(one["name"])
    if len(set(names)) < len(names):
        found.append("objectives: one is there twice")
    return found if objectives else ["objectives: there are none"]


def _trial_problems(rows: list[object], space: spaces.Space, objectives: int) -> list[str]:
    found, numbers = [], set[int]()
    for row in rows:
        wrong = _row_problem(row, space, objectives)
        number = row.get("number") if isinstance(row, Mapping) else None
        if wrong is None and (type(number) is not int or not 0 <= number < 2**31):
            wrong = f"number: {number!r:.60}"
        elif wrong is None and number in numbers:
            wrong = "its number is there twice"
        if wrong is not None:
            found.append(f"trial {number!r:.20}: {wrong}")
        elif type(number) is int:
            numbers.add(number)
    return found


def _order_problems(study: Record) -> list[str]:
    """What is said of the best, against what the trials and the directions say."""
    order = records.best(study["trials"], study["objectives"])
    front = records.pareto(study["trials"], study["objectives"])
    best = order[0] if order else None
    found = []
    if study.get("best") != best:
        found.append(f"best: {study.get('best')!r:.20}, but by its values and directions {best!r}")
    elif study.get("pareto") != front:
        found.append("pareto: is not what values and directions say")
    return found
