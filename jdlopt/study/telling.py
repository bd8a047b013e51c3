"""What a study tells: its progress, ``study.json``, the best trials as runs, the report."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jdlopt import config as configs
from jdlopt.errors import WorkdirError
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.drawing import see_others
from jdlopt.study.search import (
    BEST,
    POPULATIONS,
    STUDY,
    TRIALS,
    Search,
    StudyProgress,
    StudyResult,
    training,
)
from jdlopt.train import disk

LOCK = ".finishing"


def report(search: Search) -> None:
    """Calls ``on_progress`` with what is known now."""
    if search.on_progress is None:
        return
    states = [record.get("state") for record in search.finished.values()]
    rows = [
        {"number": number, **record}
        for number, record in search.finished.items()
        if record.get("values")
    ]
    order = records.best(rows, search.objectives)
    best = (order[0], search.finished[order[0]]["values"][0]) if order else None
    improved = best is not None and best[1] != search.best_told  # a tie is no improvement
    search.best_told = best[1] if best else None
    counts = {state: states.count(state) for state in records.TOLD}
    search.on_progress(
        StudyProgress(
            counts["done"],
            len(training(search)),
            counts["pruned"],
            counts["infeasible"],
            search.options.trials,
            best,
            improved,
            _seconds_left(search),
        )
    )


def _seconds_left(search: Search) -> float | None:
    now, left = time.perf_counter(), None
    done = len(search.finished) - search.found
    if search.options.trials and done > 0:
        waiting = max(0, search.options.trials - len(search.finished))
        left = (now - search.started) / done * waiting
    if search.deadline is not None:
        until = max(0.0, search.deadline - now)
        left = until if left is None else min(left, until)
    return left


# --- study.json -----------------------------------------------------------------------------------


def write_study(search: Search, status: str) -> dict[str, Any]:
    """Writes ``study.json`` and ``best_config.json``; returns what the first one holds."""
    see_others(search)
    rows, under_way = [], training(search)
    for number in sorted(search.points):
        record = search.finished.get(number)
        if record is None and (status != "running" or number not in under_way):
            continue  # it waits, or trains elsewhere
        known = record or {"state": "running", "values": None}
        rows.append({"number": number, "params": search.points[number], **known})
    order = records.best(rows, search.objectives)
    own = {
        name: {key: value for key, value in one.items() if key != "group"}
        for name, one in search.structures.items()
    }
    record = {
        "status": status,
        **search.options.definition(),
        "objectives": search.objectives,
        "config": search.facts["resolved"],
        "space": spaces.to_json(search.space),
        "trials": rows,
        "best": order[0] if order else None,
        "pareto": records.pareto(rows, search.objectives),
        "structures": {**_there(search.workdir).get("structures", {}), **own},
        "time": _times(search),
        "ended": search.end_reason,
        "readings": [],
        "versions": search.facts["versions"],
        "devices": search.facts["devices"],
    }
    if order:
        best = configs.dumps(trial_config(search, order[0]))
        _write(search.workdir / BEST, best)
    _save(search, record)
    return record


def _there(workdir: Path) -> dict[str, Any]:
    """What ``study.json`` held before: of a structure, an earlier call may know more."""
    try:
        found = json.loads((workdir / STUDY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _times(search: Search) -> dict[str, Any]:
    wall, spent = time.perf_counter() - search.started, search.spent
    count = len(search.workers.all) or 1
    return {
        "wall_seconds": wall,
        "training_seconds": spent.training,
        "compile_seconds": spent.compiling,
        "outside_share": max(0.0, 1.0 - (spent.training + spent.compiling) / (wall * count)),
        "workers": count,
    }


def _save(search: Search, record: Mapping[str, Any]) -> None:
    _write(search.workdir / STUDY, json.dumps(disk.as_json(record), indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    """Writes a file of the study's directory; several coordinators may do so at once."""
    try:
        disk.write_aside(path, text, f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {error.strerror}.") from error


def trial_config(search: Search, number: int) -> dict[str, Any]:
    """Returns the config that trains one trial as a run."""
    changes = {**search.points[number], "seed": search.facts["seed"]}
    return configs.to_dict(configs.override(search.config, changes))


# --- the end --------------------------------------------------------------------------------------


def finish(search: Search, should_stop: Callable[[], bool]) -> StudyResult | None:
    """Trains the best few as runs of their own, reads what the study means, reports.

    Of several coordinators that come to the end together, one does it and the others wait.

    Returns:
      The result; None if ``should_stop()`` said so before the best few were trained.
    """
    with _one_at_a_time(search.workdir, should_stop) as waited:
        record = write_study(search, "done") if not waited else None
        before = _there(search.workdir)
        if record is None and before.get("status") == "done" and _is_same(search, before):
            search.book.leave()
            return StudyResult(before, search.workdir)
        record = record or write_study(search, "done")
        order = records.best(record["trials"], search.objectives)[: search.options.keep]
        if not _train_best(search, order, should_stop):
            return None
        whole = not any(trial.state.name == "RUNNING" for trial in search.book.trials())
        search.book.leave()
        table = records.gather_curves(search.workdir)
        from jdlopt.study.readings import readings

        record["readings"] = readings(record, table)
        record["time"] = _times(search)
        _save(search, record)
        if whole:
            shutil.rmtree(search.workdir / POPULATIONS, ignore_errors=True)
            tidy(search.workdir)
        if search.options.report:
            from jdlopt.report import write_report

            write_report(search.workdir)
    return StudyResult(record, search.workdir)


def _is_same(search: Search, before: Mapping[str, Any]) -> bool:
    see_others(search)
    told = {row["number"]: row["state"] for row in before["trials"]}
    return told == {number: one["state"] for number, one in search.finished.items()}


@contextlib.contextmanager
def _one_at_a_time(workdir: Path, should_stop: Callable[[], bool]) -> Iterator[bool]:
    """Holds the study's lock; says whether another coordinator had to be waited for."""
    waited = False
    with (workdir / LOCK).open("w") as file:
        while not should_stop():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                time.sleep(0.1)
            except OSError:
                break  # a file system without locks: what is written is written aside
            else:
                break
        yield waited


def tidy(workdir: Path) -> None:
    """Removes what processes that were killed had begun to write."""
    for path in workdir.glob(".*.*-*"):
        if path.name.startswith((f".{STUDY}.", f".{BEST}.")):
            path.unlink(missing_ok=True)


def _train_best(search: Search, numbers: list[int], should_stop: Callable[[], bool]) -> bool:
    """Trains the best trials once more, by `fit`: their checkpoints, logs and test metrics.

    One that can't be trained so is left out: its values in the study stand.

    Returns:
      Whether it came to the end.
    """
    waiting, at_work = list(numbers), set[int]()
    idle = [index for index, worker in search.workers.all.items() if worker.task is None]
    while (waiting and idle) or at_work:
        while waiting and idle:
            index, number = idle.pop(), waiting.pop(0)
            place = search.workdir / TRIALS / f"{number:04d}"
            search.workers.all[index].tell({
                "do": "fit", "task": number, "config": trial_config(search, number),
                "workdir": str(place.absolute()),
            })  # fmt: skip
            at_work.add(index)
        heard = search.workers.hear(0.1)
        if heard is not None:
            index, message = heard
            if index in at_work and message["event"] in ("done", "failed", "ended"):
                at_work.remove(index)
                idle += [index] if message["event"] != "ended" else []
            elif index in idle and message["event"] == "ended":
                idle.remove(index)
            if message["event"] == "done" and "record" in message:
                search.spent.training += message["record"]["wall_seconds"]
        search.book.beat()
        if should_stop():
            return False
    return not should_stop()
