"""Whether a run still moves: a step that hangs, a process that is not heard of any more.

A thread looks at the run's `jdlopt.train.goodput.Stopwatch` and at its `Peers`. It counts the time
in which it was running itself, so that a process which was stopped and goes on, or a machine that
slept, is not taken for one that hangs. Where nothing moves any more it ends the process, whatever
that waits for: a launcher starts the run again, and it goes on from its newest checkpoint.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import jax

from jdlopt import writing
from jdlopt.errors import HUNG, escaped
from jdlopt.train import beat
from jdlopt.train.goodput import Stopwatch

FACTOR = 20.0
"""How many times its median a dispatch or an evaluation may take."""
PEER_SECONDS = 20
"""How long another process may not be heard of while all of them train."""
TICK = 0.5
"""Seconds between two looks."""
WRITING_SECONDS = 10.0
"""How long the stack traces may take to be written: the disk may be what hangs."""
LEFT = "left"


class Coordinator(Protocol):
    """The part of jax's client of the process that coordinates a run which is used here."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = ...) -> None:
        """Keeps a value."""

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """Returns all keys that begin so, with their values."""


class Peers:
    """What is known of the other processes, through the one that coordinates them.

    Each tells the coordinator over and over that it lives. The first looks at what all of them
    told; for the others it is enough that the coordinator answers: it ends if one of them is
    missing, and then they do.

    Args:
      coordinator: keeps what is told.
      index: which process this is.
      prefix: how the keys of this training begin.

    Attributes:
      told: how often the coordinator has answered.
      seen: what each other process told last, by its number.
    """

    def __init__(self, coordinator: Coordinator, index: int, prefix: str):
        self._coordinator, self._index, self._prefix = coordinator, index, prefix
        self.told, self.seen = 0, dict[str, str]()

    def tell(self) -> None:
        """Tells that this process lives, and takes note of the others."""
        with contextlib.suppress(Exception):  # whatever it is, the answers stay away
            self._set(str(self.told))
            if self._index == 0:
                found = self._coordinator.key_value_dir_get(self._prefix)
                known = {key.rpartition("/")[2]: value for key, value in found}
                self.seen = {name: one for name, one in known.items() if name != str(self._index)}
            self.told += 1

    def leave(self) -> None:
        """Tells that this process trains no more, in good order."""
        with contextlib.suppress(Exception):
            self._set(LEFT)

    def _set(self, value: str) -> None:
        self._coordinator.key_value_set(f"{self._prefix}/{self._index}", value, True)


class Ages:
    """How long things have been as they are, in time that is told by whoever asks."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[object, float]] = {}

    def __call__(self, name: Hashable, state: object, passed: float) -> float:
        """Returns for how long a thing has had this state.

        Args:
          name: of the thing.
          state: as it is now.
          passed: seconds since it was asked for last.
        """
        before, age = self._known.get(name, (None, 0.0))
        age = age + passed if before == state else 0.0
        self._known[name] = state, age
        return age


def limit(lengths: Sequence[float], least: float) -> float | None:
    """Returns after how many seconds something hangs; None while no other like it is known.

    Args:
      lengths: of others like it, in seconds.
      least: seconds that anything may take.
    """
    return max(least, FACTOR * statistics.median(lengths)) if lengths else None


class Watch:
    """Looks whether a training moves.

    Args:
      stopwatch: of the run.
      least: seconds that anything may take.
      peers: of several processes; else None.
    """

    def __init__(self, stopwatch: Stopwatch, least: float, peers: Peers | None = None):
        self.stopwatch, self.least, self.peers = stopwatch, least, peers
        self._ages = Ages()

    def look(self, passed: float) -> str | None:
        """Returns why the training does not go on; None if it does, as far as can be seen.

        Args:
          passed: seconds since the last look.
        """
        number, what, lengths = self.stopwatch.running()
        age, most = self._ages("phase", number, passed), limit(lengths, self.least)
        if most is not None and age > most:
            median = statistics.median(lengths)
            return (
                f"nothing has moved for {age:.0f} s after step {self.stopwatch.step:,} "
                f"({what}; as a rule it takes {median:.3g} s)"
            )
        return self._missing(passed) if self.peers else None

    def _missing(self, passed: float) -> str | None:
        """Says which process is not heard of any more."""
        assert self.peers is not None
        most = min(self.least, PEER_SECONDS)
        for name, told in sorted(self.peers.seen.items()):
            age = self._ages(("peer", name), told, passed)
            if told != LEFT and age > most:
                return f"process {name} has not been heard of for {age:.0f} s"
        age = self._ages("coordinator", self.peers.told, passed)
        return f"process 0 has not answered for {age:.0f} s" if age > most else None


@contextlib.contextmanager
def watching(watch: Watch, end: Callable[[str], None]) -> Iterator[None]:
    """Looks again and again whether a training moves, until the end.

    Args:
      watch: looks.
      end: is told why it does not, once.
    """
    ended = threading.Event()

    def run() -> None:
        last = time.monotonic()
        while not ended.wait(TICK):
            now = time.monotonic()
            reason = watch.look(min(now - last, 2 * TICK))
            last = now
            if reason is not None:
                end(reason)
                return

    thread = threading.Thread(target=run, daemon=True, name="jdlopt-watch")
    telling = beat.every(2 * TICK, watch.peers.tell) if watch.peers else contextlib.nullcontext()
    with telling:
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
    if watch.peers:
        watch.peers.leave()


def end_process(workdir: Path | None, reason: str) -> NoReturn:
    """Writes the stack traces of all threads into a run's directory and ends the process.

    Args:
      workdir: the run's directory; None writes none.
      reason: why.
    """
    told = f"jdlopt: {reason}."
    if workdir is not None:
        path = workdir / f"hang-{jax.process_index()}.txt"
        writer = threading.Thread(target=_write_traces, args=(path, reason), daemon=True)
        writer.start()
        writer.join(WRITING_SECONDS)
        told += f" What each thread was doing is in {path}. The same command goes on."
    os.write(2, (escaped(told) + "\n").encode("utf-8", "backslashreplace"))
    os._exit(HUNG)


def _write_traces(path: Path, reason: str) -> None:
    where = f"process {jax.process_index()} of {jax.process_count()}, {platform.node()}"
    header = f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}  {where}, pid {os.getpid()}: {reason}"
    with (
        contextlib.suppress(OSError),
        writing.aside(path, binary=True, settled=False) as file,
    ):
        file.write(f"{escaped(header)}\n\n".encode())
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
