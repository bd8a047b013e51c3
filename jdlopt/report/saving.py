"""A page as a file of the directory that it is about."""

from __future__ import annotations

from pathlib import Path

from jdlopt import writing
from jdlopt.errors import WorkdirError
from jdlopt.train import disk

REPORT = "report.html"


def save(folder: Path, text: str, name: str = REPORT) -> Path:
    """Writes a page beside its final name, renames it, and returns its path.

    Args:
      folder: where; it is made if it is not there.
      text: the page.
      name: the file's.

    Raises:
      WorkdirError: it can't be written.
    """
    path = folder / name
    try:
        writing.make_folder(folder)
        writing.write_aside(path, text)
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error
    return path
