"""Signals that ask a run to stop, noted while it trains."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """Whether a signal has asked to stop; the loop looks at it between dispatches."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal; a second Ctrl-C is for whoever answered it before the run."""
        self.signal = number
        if number == signal.SIGINT and number in self.before:
            signal.signal(number, self.before[number])


@contextmanager
def signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a `StopRequest` while a run trains."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        request.before[number] = signal.signal(number, request)
    try:
        yield request
    finally:
        for known, handler in request.before.items():
            signal.signal(known, handler)
