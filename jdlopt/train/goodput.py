"""Goodput: which part of a run's time made steps that count, and where the rest went.

An `Account` has the seconds of all starts of a run by kind; they add up to its wall time. A
`Stopwatch` keeps the one of a start: at any moment one kind is running, and no value of the device
is waited for. The newest account lies beside the checkpoints, written about every second, so that a
process that is killed is counted as well: what it had made since its last checkpoint is lost, and
the time until the run goes on is part of the restart.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from jdlopt import writing
from jdlopt.train import beat, disk

FILE = "goodput.json"
STEPS, COMPILE, CHECKPOINT, DATA_WAIT, EVALUATION, START, RESTART, LOST, END = KINDS = (
    "steps", "compile", "checkpoint", "data_wait", "evaluation", "start", "restart", "lost_steps",
    "end",
)  # fmt: skip
"""What time goes to: ``steps`` alone counts, ``lost_steps`` are those that were made again."""
REMEMBERED = 128
"""Phases of a kind whose lengths are kept."""
BEAT_SECONDS = 1.0
"""How often the account is written: what of a killed process may count as restart."""


@dataclass(frozen=True)
class Account:
    """Where the time of a run went, over all of its starts.

    Attributes:
      seconds: by kind.
      starts: how often it was started.
      step: updates that had been dispatched.
      lost_steps: updates that had to be made again.
    """

    seconds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    starts: int = 0
    step: int = 0
    lost_steps: int = 0

    def wall(self) -> float:
        """Returns the seconds in all."""
        return math.fsum(self.seconds.values())

    def share(self) -> float | None:
        """Returns the goodput: the part of the time that made steps which count; None of none."""
        wall = self.wall()
        return self.seconds[STEPS] / wall if wall > 0 else None

    def with_more(self, kind: str, seconds: float) -> Account:
        """Returns the account with more time of one kind."""
        return replace(self, seconds={**self.seconds, kind: self.seconds[kind] + seconds})

    def to_dict(self) -> dict[str, object]:
        """Returns it as JSON can hold it."""
        return {"share": self.share(), **asdict(self)}

    @staticmethod
    def from_dict(record: object) -> Account:
        """Returns the account that `to_dict` wrote.

        Raises:
          ValueError: it is none.
        """
        found = record if isinstance(record, Mapping) else {}
        seconds = found.get("seconds")
        times = {kind: _number(seconds, kind) for kind in KINDS}
        counts = {name: int(_number(found, name)) for name in ("starts", "step", "lost_steps")}
        return Account(times, **counts)


def _number(record: object, name: str) -> float:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"no account of a run's time: {name} is {value!r}")
    return float(value)


def resumed(newest: Account | None, saved: Account | None, step: int, away: float) -> Account:
    """Returns the account with which one more start begins.

    Args:
      newest: what lay beside the checkpoints; None where there was nothing.
      saved: what the checkpoint says that the run goes on from; None where it begins anew.
      step: of that checkpoint; 0 where the run begins anew.
      away: seconds since `newest` was written in which a run that had not ended was not there.
    """
    kept = saved or Account()
    before = newest if newest is not None and newest.wall() >= kept.wall() else kept
    lost = max(0.0, before.seconds[STEPS] - kept.seconds[STEPS])
    seconds = dict(before.seconds)
    seconds[STEPS] -= lost
    seconds[LOST] += lost
    seconds[RESTART] += away
    again = max(0, before.step - step)
    return Account(seconds, before.starts + 1, step, before.lost_steps + again)


@dataclass
class _Phase:
    """What goes on: a kind of time, what it is compared with, and its own seconds so far."""

    kind: str
    of: str | None
    seconds: float = 0.0


class Stopwatch:
    """Counts the time of one start, by kind; may be asked from any thread.

    Args:
      kind: what runs at first.
      now: the clock, in seconds.

    Attributes:
      step: updates dispatched so far.
      began_at: the time of day when it was made.
    """

    def __init__(self, kind: str = START, now: Callable[[], float] = time.perf_counter):
        self._now, self._lock = now, threading.Lock()
        self._account = Account(starts=1)
        self._phases = [_Phase(kind, None)]
        self._since, self._moved = now(), 0.0
        self._lengths: dict[str, deque[float]] = {}
        self._changes = self.step = 0
        self.began_at = time.time()

    def go_on(self, account: Account) -> None:
        """Goes on with the account of a run; the time so far is that of a further start."""
        with self._lock:
            self._add_up()
            own = dict(self._account.seconds)
            if account.starts > 1:
                own[RESTART] += own.pop(START)
                for phase in self._phases:
                    phase.kind = RESTART if phase.kind == START else phase.kind
            total = {kind: known + own.get(kind, 0.0) for kind, known in account.seconds.items()}
            self._account, self.step = replace(account, seconds=total), account.step

    def switch(self, kind: str, of: str | None = None) -> None:
        """Ends what was running and begins a phase of a kind.

        Args:
          kind: what its time counts as.
          of: what it is compared with: how long others of this name were; None: with nothing.
        """
        with self._lock:
            self._end_phase()
            self._phases.append(_Phase(kind, of))

    @contextlib.contextmanager
    def during(self, kind: str, of: str | None = None) -> Iterator[None]:
        """Counts what is done as of a kind; what was running pauses. Arguments as of `switch`."""
        with self._lock:
            self._add_up()
            self._phases.append(_Phase(kind, of))
        try:
            yield
        finally:
            with self._lock:
                self._end_phase()

    def move(self, kind: str, seconds: float) -> None:
        """Counts seconds of what runs, as far as there are so many, as of a kind."""
        with self._lock:
            moved = max(0.0, min(seconds, self._now() - self._since - self._moved))
            self._moved += moved
            self._account = self._account.with_more(kind, moved)

    def _add_up(self) -> None:
        """Counts the time since it was counted last, and notes that something goes on."""
        now, phase = self._now(), self._phases[-1]
        length = now - self._since
        phase.seconds += length
        self._account = self._account.with_more(phase.kind, max(0.0, length - self._moved))
        self._since, self._moved = now, 0.0
        self._changes += 1

    def _end_phase(self) -> None:
        self._add_up()
        phase = self._phases.pop()
        if phase.of is not None:
            self._lengths.setdefault(phase.of, deque(maxlen=REMEMBERED)).append(phase.seconds)

    def account(self) -> Account:
        """Returns the account as of now."""
        with self._lock:
            running = max(0.0, self._now() - self._since - self._moved)
            found = self._account.with_more(self._phases[-1].kind, running)
            return replace(found, step=self.step)

    def running(self) -> tuple[int, str, list[float]]:
        """Returns a number that changes when anything goes on, and what is running.

        Returns:
          The number; what the running phase is compared with; how long others of that were.
        """
        with self._lock:
            of = self._phases[-1].of
            return self._changes, of or "", list(self._lengths.get(of or "", ()))


# --- beside the checkpoints -----------------------------------------------------------------------


def write(workdir: Path, account: Account, ended: bool) -> None:
    """Writes a run's newest account; what can't be written is no reason not to train.

    It is not handed to the disk: after a power cut the checkpoint's own serves.

    Args:
      workdir: the run's directory.
      account: as of now.
      ended: whether the process ends in good order: the time until it goes on is not the run's.
    """
    record = {**account.to_dict(), "ended": ended, "at": time.time()}
    with contextlib.suppress(OSError):
        writing.write_aside(workdir / FILE, json.dumps(record, indent=2) + "\n", settled=False)


@contextlib.contextmanager
def kept(workdir: Path, stopwatch: Stopwatch) -> Iterator[None]:
    """Keeps a run's newest account beside its checkpoints, until the end."""

    def account() -> None:
        write(workdir, stopwatch.account(), ended=False)

    with beat.every(BEAT_SECONDS, account):
        yield
    write(workdir, stopwatch.account(), ended=True)


def read(workdir: Path, now: float) -> tuple[Account | None, float]:
    """Returns a run's newest account, and for how long the run has been away without having ended.

    Args:
      workdir: the run's directory.
      now: the time of day, in seconds.
    """
    record = disk.read_object(workdir / FILE) or {}
    try:
        account = Account.from_dict(record)
    except ValueError:
        return None, 0.0
    at = record.get("at")
    if record.get("ended") or not isinstance(at, int | float):
        return account, 0.0
    return account, max(0.0, now - at)
