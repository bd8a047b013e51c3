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

from jdlopt import config as configs
from jdlopt.errors import escaped
from jdlopt.train.loggers.logger import FINAL, Opening

FOLDER = "tensorboard"
"""In the run's directory."""


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


class TensorBoard:
    """A run's scalars, and a row of the hparams table once it has ended."""

    def __init__(self, opening: Opening):
        self._folder = opening.workdir / FOLDER
        self._config = configs.flat(opening.config)
        self._events = Events(self._folder, opening.step + 1 if opening.step else None)

    @property
    def identity(self) -> Mapping[str, str]:
        """Nothing: the files are in the run's directory."""
        return {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step."""
        self._events.scalars(values, step)

    def flush(self) -> None:
        """Hands everything written so far to the disk."""
        self._events.flush()

    def close(self, status: str, metrics: Mapping[str, object]) -> None:
        """Writes the config and the final metrics of a run that has ended to the hparams table."""
        if status in FINAL:
            table = Events(self._folder / "hparams")
            table.hparams(self._config, metrics)
            table.close()
        self._events.close()
