"""Work that is done again and again beside a training, in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

PATIENCE = 5.0
"""Seconds that a call in progress has to end: a file system or a network may not answer."""


@contextlib.contextmanager
def every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Does some work at once, and every so many seconds until the end.

    Args:
      seconds: between two calls.
      work: raises nothing.
    """
    ended = threading.Event()

    def run() -> None:
        work()
        while not ended.wait(seconds):
            work()

    thread = threading.Thread(target=run, daemon=True, name=f"jdlopt-{work.__name__}")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PATIENCE)
