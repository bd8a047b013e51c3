"""A page as a file of the directory that it is about."""

from __future__ import annotations

from pathlib import Path

from jdlopt import writing
from jdlopt.errors import WorkdirError

REPORT = "report.html"


def save(folder: Path, text: str) -> Path:
    """Writes the page beside its final name, renames it, and returns its path."""
    path = folder / REPORT
    try:
        writing.write_aside(path, text)
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {error.strerror}.") from error
    return path
