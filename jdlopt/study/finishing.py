"""The end of a study: the best trials trained as runs, and what the study means."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jdlopt import writing
from jdlopt.executor.messages import Failed, RunTrained, TrainRun
from jdlopt.study import curves, records
from jdlopt.study.progress import Progress
from jdlopt.study.setup import BEST, LOCK, POPULATIONS, STUDY, TRIALS, StudyResult


class RunWarning(UserWarning):
    """One of the best trials could not be trained as a run."""


def finish(
    progress: Progress, why: str | None, should_stop: Callable[[], bool]
) -> StudyResult | None:
    """Trains the best few as runs of their own, and reads what the study means.

    Of several coordinators that come to the end together, one does it and the others wait.

    Args:
      progress: of the study.
      why: it ended before all trials were trained.
      should_stop: asked about ten times a second.

    Returns:
      The result; None if ``should_stop()`` said so before the best few were trained.
    """
    setup, storage = progress.setup, progress.trials.storage
    workdir = setup.workdir
    with _one_at_a_time(workdir, should_stop) as waited:
        record = progress.write("done", why) if not waited else None
        before = progress.before()
        if record is None and before.get("status") == "done" and _is_same(progress, before):
            storage.leave()
            _clear(progress)  # the one that was waited for may have left it: trials of this one ran
            return StudyResult(before, workdir)
        record = record or progress.write("done", why)
        order = records.best(record["trials"], setup.objectives)[: setup.options.keep]
        if not _train_best(progress, order, should_stop):
            return None
        storage.leave()
        table = curves.gather(workdir)
        from jdlopt.study.readings import readings

        record["readings"] = readings(record, table)
        record["time"] = progress.times()
        progress.save(record)
        _clear(progress)
    return StudyResult(record, workdir)


def _clear(progress: Progress) -> None:
    """Removes what a search needs while it trains, unless another coordinator trains still."""
    if any(trial.state.name == "RUNNING" for trial in progress.trials.storage.trials()):
        return
    workdir = progress.setup.workdir
    shutil.rmtree(workdir / POPULATIONS, ignore_errors=True)
    tidy(workdir)


def _is_same(progress: Progress, before: Mapping[str, Any]) -> bool:
    progress.trials.see_others()
    there = {
        row["number"]: row["state"] for row in before["trials"] if row["state"] in records.STATES
    }
    return there == {number: one["state"] for number, one in progress.trials.finished.items()}


@contextlib.contextmanager
def _one_at_a_time(workdir: Path, should_stop: Callable[[], bool]) -> Iterator[bool]:
    """Holds the study's lock; says whether another coordinator had to be waited for."""
    waited = False
    with writing.lock_file(workdir / LOCK) as file:
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
    """Removes what processes that were killed had begun to write; no other is at work now."""
    texts = [
        path for path in workdir.glob(".*.*-*") if path.name.startswith((f".{STUDY}.", f".{BEST}."))
    ]
    for path in (*texts, *curves.half_written(workdir)):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is gone, or holds what is to be joined yet
        (workdir / curves.PARTS).rmdir()


def _train_best(progress: Progress, numbers: list[int], should_stop: Callable[[], bool]) -> bool:
    """Trains the best trials once more, by `fit`: their checkpoints, logs and test metrics.

    One that can't be trained so is left out, with a warning: its values in the study stand.

    Returns:
      Whether it came to the end.
    """
    executor, setup = progress.executor, progress.setup
    places: dict[int, Path] = {}
    for number in numbers:
        place = setup.workdir / TRIALS / f"{number:04d}"
        config = setup.config_of(progress.trials.points[number])
        places[executor.submit(TrainRun(config, str(place.absolute()))).number] = place
    while executor.busy:
        received = executor.receive(0.1)
        if received is not None and isinstance(received.message, RunTrained):
            executor.spent.training += received.message.record["wall_seconds"]
        elif received is not None and isinstance(received.message, Failed):
            warnings.warn(
                f"{places[received.task.number]}: could not be trained as a run: "
                f"{received.message.message} The trial's values in the study stand.",
                RunWarning,
                stacklevel=2,
            )
        progress.trials.storage.beat()
        if should_stop():
            return False
    return not should_stop()
