"""TensorBoard's event files, written in the thread that logs.

tensorboardX's own ``SummaryWriter`` hands events to a thread through a short queue; once a full
disk has ended that thread, the next event waits for ever. Here a failed write is an ``OSError``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from jdlopt.errors import escaped


class Events:
    """One open event file of a directory."""

    def __init__(self, directory: Path, purge_step: int | None = None):
        """Opens a new file.

        Args:
          directory: where it lies; made if it does not exist.
          purge_step: TensorBoard hides what older files say of this step and later ones.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory / "events"))
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def _write(self, **fields: object) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))

    def scalars(self, values: Mapping[str, object], step: int = 0) -> None:
        """Writes those of the values that are numbers, as one event: a run logs every epoch."""
        found = [
            Summary.Value(tag=escaped(name), simple_value=value)
            for name, value in values.items()
            if isinstance(value, int | float)
        ]
        self._write(step=step, summary=Summary(value=found))

    def hparams(self, config: Mapping[str, object], metrics: Mapping[str, object]) -> None:
        """Writes a row of TensorBoard's hparams table."""
        plain = {
            escaped(key): value if isinstance(value, int | float | bool) else escaped(str(value))
            for key, value in config.items()
        }
        numbers = {
            escaped(key): value
            for key, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for part in summary.hparams(plain, numbers):
            self._write(summary=part)
        self.scalars(numbers)

    def flush(self) -> None:
        """Hands everything written so far to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()
