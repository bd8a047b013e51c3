"""``metrics.csv``: the logged values as a table, a step a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from jdlopt import writing
from jdlopt.train.loggers.logger import Opening

FILE = "metrics.csv"
Row = Mapping[str, object]


class CsvFile:
    """A table that grows by a row a step, and is written anew where a column is added."""

    def __init__(self, opening: Opening):
        self._path = opening.workdir / FILE
        rows = [row for row in self._read() if _step(row) <= opening.step]
        self._columns = list(dict.fromkeys(("step", *(name for row in rows for name in row))))
        self._write_all(rows)

    @property
    def identity(self) -> Mapping[str, str]:
        """Nothing: the file is in the run's directory."""
        return {}

    def _read(self) -> list[dict[str, str]]:
        """Returns the rows that there are; what is no row is left out."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        whole = text[: text.rfind("\n") + 1]  # a killed process may leave half of a line
        rows = csv.DictReader(io.StringIO(whole))
        return [row for row in rows if None not in row and None not in row.values()]

    def _lines(self, rows: Sequence[Row], header: bool) -> str:
        made = io.StringIO()
        writer = csv.DictWriter(made, self._columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return made.getvalue()

    def _write_all(self, rows: Sequence[Row]) -> None:
        writing.write_aside(self._path, self._lines(rows, header=True))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a row."""
        row = {"step": step, **values}
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._write_all([*self._read(), row])
            return
        with writing.appended(self._path) as file:
            file.write(self._lines([row], header=False).encode())

    def flush(self) -> None:
        """Does nothing: each row is written at once."""

    def close(self, status: str, metrics: Mapping[str, object]) -> None:
        """Does nothing."""


def _step(row: Mapping[str, str]) -> float:
    try:
        return float(row.get("step", "inf"))
    except ValueError:
        return float("inf")
