"""What is around Orbax's reading and writing: paths that it takes, and no log of its own."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from absl import logging as absl_logging

from jdlopt.errors import escaped
from jdlopt.train import disk

SAVING = "saving-"
"""How the folder of a checkpoint begins that is being written."""
SETTLE_SECONDS = 3.0
"""How long what still writes after a failed write is waited for."""


@contextlib.contextmanager
def settled(before: Collection[threading.Thread]) -> Iterator[None]:
    """Reports a full disk once, after what still writes has ended.

    Args:
      before: the threads that there were before anything was written.
    """
    full: OSError | None = None
    try:
        yield
    except Exception as error:
        if not disk.is_full(error):
            raise
        full = OSError(errno.ENOSPC, str(error))
    if full:
        deadline = time.monotonic() + SETTLE_SECONDS
        for thread in set(threading.enumerate()) - {*before, threading.current_thread()}:
            thread.join(max(0.0, deadline - time.monotonic()))
        gc.collect()  # asyncio reports futures that nobody asked when they go, so here
        raise full


def _unless_unsaved(record: logging.LogRecord) -> bool:
    """Drops what asyncio reports of futures that a save on a full disk has left."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not (disk.is_full(error) or f"/{SAVING}" in str(error))


class _Quiet:
    """Keeps Orbax's logs back: each save as if it were a warning, each failure many times over.

    Until the last of those who write and read at the same time is done.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            self._verbosity, self._hook = absl_logging.get_verbosity(), sys.unraisablehook
            absl_logging.set_verbosity(absl_logging.FATAL)
            # for good: what a save has left may be collected long after it
            logging.getLogger("asyncio").addFilter(_unless_unsaved)
            sys.unraisablehook = self._unless_late

    def _unless_late(self, raised: sys.UnraisableHookArgs) -> None:
        # TensorStore reports writes that end after another one's failure has closed their loop
        if "Event loop is closed" not in str(raised.exc_value):
            self._hook(raised)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            absl_logging.set_verbosity(self._verbosity)
            sys.unraisablehook = self._hook


QUIET = _Quiet()


@contextlib.contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """Gives a folder by a path that Orbax takes: a link's, where its own is no UTF-8 or a pattern.

    Orbax looks for what lies in a folder by patterns, and ``[a]`` is one.
    """
    place = folder.absolute()
    name = str(place)
    if name == escaped(name) and not any(sign in name for sign in "*?[]"):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="jdlopt-") as beside:
        link = Path(beside) / "checkpoint"
        link.symlink_to(place, target_is_directory=True)
        yield link
