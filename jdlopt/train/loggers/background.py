"""Loggers at work: each in a thread of its own, so that training waits for none of them."""

from __future__ import annotations

import json
import queue
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jdlopt import writing
from jdlopt.train import disk
from jdlopt.train.loggers import find_logger
from jdlopt.train.loggers.logger import Logger, LoggerWarning, Opener, Opening

RECORD = "loggers.json"
"""What each logger keeps in the run's directory, to go on with the same run."""
FLUSH_SECONDS, CLOSE_SECONDS = 1.0, 30.0
"""So long is waited for loggers before a checkpoint is saved, and at the end."""
Keep = Callable[[dict[str, str]], None]
"""Writes down what a logger keeps."""


class _Task(NamedTuple):
    """What to do with a logger, of how many steps it has the values, and what tells its end."""

    do: Callable[[Logger], None]
    steps: int = 0
    done: threading.Event | None = None


class _Background:
    """One logger and its thread; what it is given is done in order.

    Attributes:
      name: of the logger.
      identity: what it keeps, once it is open.
      lost: steps whose values were not logged.
      reason: why the first of them was not; None while nothing failed.
    """

    def __init__(self, name: str, opener: Opener, opening: Opening, keep: Keep):
        self.name, self.identity, self.reason = name, dict[str, str](), ""
        self._said = self._late = False
        self._given = 0  # steps, counted in the loop; the others in the thread
        self._done = self._lost = 0
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        work = (opener, opening, keep)
        self._thread = threading.Thread(
            target=self._work, args=work, name=f"logger {name}", daemon=True
        )
        self._thread.start()

    # --- in its thread ----------------------------------------------------------------------------

    def _work(self, opener: Opener, opening: Opening, keep: Keep) -> None:
        logger = self._open(opener, opening, keep)
        while (task := self._tasks.get()) is not None:
            try:
                if logger is None:
                    self._lost += task.steps
                else:
                    task.do(logger)
            except Exception as error:
                self._lost += task.steps
                self._failed(error)
            self._done += task.steps
            if task.done is not None:
                task.done.set()

    def _open(self, opener: Opener, opening: Opening, keep: Keep) -> Logger | None:
        try:
            logger = opener(opening)
        except Exception as error:
            self._failed(error)
            return None
        try:
            self.identity = dict(logger.identity)
            keep(self.identity)
        except Exception as error:
            self._failed(error)
        return logger

    def _failed(self, error: Exception) -> None:
        self.reason = self.reason or " ".join(f"{type(error).__name__}: {error}".split())[:200]

    # --- in the training loop ---------------------------------------------------------------------

    def say(self) -> None:
        """Warns, once, that the logger failed."""
        if self.reason and not self._said:
            self._said = True
            warnings.warn(
                f"train.loggers: {self.name}: {self.reason}. The training goes on; metrics.jsonl "
                "has all values.",
                LoggerWarning,
                stacklevel=2,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands on the values of a step."""
        self._given += 1
        self._tasks.put(_Task(lambda logger: logger.log(step, values), 1))

    def flush(self) -> None:
        """Has what was handed on written, and waits a moment for it, unless it lags behind."""
        if self._late and self._done < self._given:
            return
        done = threading.Event()
        self._tasks.put(_Task(lambda logger: logger.flush(), done=done))
        self._late = not done.wait(FLUSH_SECONDS)

    def end(self, status: str, metrics: Mapping[str, object]) -> None:
        """Hands on the end of the log; `join` waits for it."""
        self._tasks.put(_Task(lambda logger: logger.close(status, metrics)))
        self._tasks.put(None)

    def join(self, until: float) -> None:
        """Waits for the end until a time of `time.monotonic`, and gives up what is left then."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self.reason = self.reason or f"it had not ended after {CLOSE_SECONDS:g} s"

    def record(self) -> dict[str, object]:
        """Returns what there is to say of it."""
        lost = self._lost + self._given - self._done
        failed = {"reason": self.reason, "lost_steps": lost} if self.reason else {}
        return {**self.identity, **failed}


class Loggers:
    """All loggers of a run.

    Args:
      names: of `jdlopt.train.loggers.LOGGERS`, or dotted paths.
      opening: what each is opened with; the identity is read from the run's directory.
    """

    def __init__(self, names: Sequence[str], opening: Opening):
        self._kept = read_identities(opening.workdir)
        self._lock, self._path = threading.Lock(), opening.workdir / RECORD
        self._ended = False
        self._all = [self._started(name, opening) for name in dict.fromkeys(names)]

    def _started(self, name: str, opening: Opening) -> _Background:
        def keep(identity: dict[str, str]) -> None:
            with self._lock:
                if identity and self._kept.get(name) != identity:
                    self._kept[name] = identity
                    writing.write_aside(self._path, json.dumps(self._kept, indent=2) + "\n")

        known = opening._replace(identity=self._kept.get(name, {}))
        return _Background(name, find_logger(name), known, keep)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands the values of a step to each."""
        for one in self._all:
            one.say()
            one.log(step, values)

    def flush(self) -> None:
        """Has each write what it was given."""
        for one in self._all:
            one.flush()
            one.say()

    def end(self, status: str, metrics: Mapping[str, object]) -> dict[str, dict[str, object]]:
        """Ends each, and returns what there is to say of it in ``result.json``, by its name.

        Args:
          status, metrics: as `Logger.close` takes them.
        """
        if not self._ended:
            self._ended = True
            for one in self._all:
                one.end(status, metrics)
            until = time.monotonic() + CLOSE_SECONDS
            for one in self._all:
                one.join(until)
                one.say()
        return {one.name: one.record() for one in self._all}


def read_identities(workdir: Path) -> dict[str, dict[str, str]]:
    """Returns what loggers kept in a run's directory; what is damaged counts as nothing."""
    found = disk.read_object(workdir / RECORD) or {}
    return {
        name: {key: value for key, value in one.items() if isinstance(value, str)}
        for name, one in found.items()
        if isinstance(one, dict)
    }
