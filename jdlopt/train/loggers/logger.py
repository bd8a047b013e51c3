"""What a logger is: where a run's values go beside ``metrics.jsonl``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

FINAL = ("done", "stopped early")
"""The statuses of a run that has nothing left to train."""


class LoggerWarning(UserWarning):
    """A logger has failed, or has no place to log to; the training goes on without it."""


class Opening(NamedTuple):
    """What a logger is opened with.

    Attributes:
      workdir: the run's directory.
      name: what to call the run: its directory, from the working directory.
      config: the resolved config, nested.
      step: of the checkpoint that the run goes on from; 0 where it begins. What was logged of later
        steps is logged again.
      identity: what the logger's `Logger.identity` was in an earlier call, so that the same run
        goes on; empty where there was none.
    """

    workdir: Path
    name: str
    config: Mapping[str, Any]
    step: int = 0
    identity: Mapping[str, str] = {}


class Logger(Protocol):
    """Takes a run's values. It is called from one thread of its own, so that it may wait.

    What it raises is said once and counted; the training goes on.
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """What is kept in the run's directory, to go on with the same run later."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the values of a step; those that `metrics.jsonl` has, and timings."""
        ...

    def flush(self) -> None:
        """Hands on what it holds back: the run saves a checkpoint."""
        ...

    def close(self, status: str, metrics: Mapping[str, object]) -> None:
        """Ends the log.

        Args:
          status: ``done``, ``stopped early``, ``interrupted`` or ``diverged``, as in
            ``result.json``; ``failed`` where an error ended the run.
          metrics: those of ``result.json``.
        """
        ...


Opener = Callable[[Opening], Logger]
"""What `jdlopt.train.loggers.LOGGERS` holds, and what a dotted path names."""


_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def identifier(identity: Mapping[str, str], key: str) -> str | None:
    """Returns an identifier that a logger kept, or None if there is none that is one."""
    found = identity.get(key, "")
    return found if _IDENTIFIER.fullmatch(found) else None
