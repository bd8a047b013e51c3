"""Files of tables: CSV, TSV and Parquet, as columns by name."""

from __future__ import annotations

import csv
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.data.damage import Skipped
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
WIDE = "too many columns"
MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""What stands for a missing value in a CSV, as in pandas."""


def read_table(
    path: Path,
    skipped: Skipped | None = None,
    raw_text: str | None = None,
    as_text: Sequence[str] = (),
    remedies: bool = False,
) -> pd.DataFrame:
    """Returns a CSV, TSV or Parquet file's columns; the index counts its rows from 1.

    Args:
      path: the file; row 1 of a CSV is the first below the header, and blank lines are none.
      skipped: where rows with more values than the header has names are counted; None refuses
        them.
      raw_text: a column whose texts are kept to the letter: ``NA`` and an empty one are texts.
      as_text: columns of a CSV that are read as text, even if all they hold are numbers.
      remedies: name the config key that leaves such rows out; a file to predict on has none.

    Raises:
      DataError: the file can't be parsed, or two of its columns have one name.
    """
    import pandas as pd

    suffix = path.suffix.lower()
    hint = " data.on_bad='skip' leaves such rows out." if remedies else ""
    try:
        if suffix in (".parquet", ".pq"):
            import pyarrow.parquet

            check_header(list(pyarrow.parquet.read_schema(path).names), path)
            table, rows = pd.read_parquet(path, engine="pyarrow"), None
        else:
            table, rows = _read_csv(path, skipped, raw_text, as_text)
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: a row has more values than the header has names ({error}). "
            f"Correct the row, or quote values that contain the separator.{hint}"
        ) from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it.") from error
    except DataError:
        raise
    except Exception as error:  # the parsers let all kinds through on damaged bytes
        kind = "Parquet" if suffix in (".parquet", ".pq") else "CSV in UTF-8"
        reason = " ".join(str(error).split())
        hint = f".{hint}" if hint and "fields in line" in reason else ""  # a row is too wide
        raise DataError(f"{path}: can't be read as {kind}: {reason}{hint}") from error
    table.columns = [str(name) for name in table.columns]
    table.index = pd.Index(
        np.arange(1, len(table) + 1) if rows is None or len(rows) != len(table) else rows
    )
    return table


def _read_csv(
    path: Path, skipped: Skipped | None, raw_text: str | None, as_text: Sequence[str]
) -> tuple[pd.DataFrame, list[int] | None]:
    """Returns the table, and which row of the file each is, where some were left out."""
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    header = _csv_header(path, separator)
    check_header(header, path)
    file: Any = path
    rows: list[int] | None = None
    if skipped is not None:
        text, rows = _without_wide_rows(path, separator, skipped)
        file = io.StringIO(text)
    names = [name for name in (*as_text, raw_text) if name in header]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with too many values
        table = pd.read_csv(
            file,
            sep=separator,
            encoding="utf-8-sig",
            skipinitialspace=True,
            index_col=False,
            low_memory=False,
            dtype=dict.fromkeys(names, "str"),
            keep_default_na=False,
            na_values={name: MISSING_WORDS for name in header if name != raw_text},
        )
    return table, rows


def _csv_header(path: Path, separator: str) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file, delimiter=separator, skipinitialspace=True):
            if any(cell.strip() for cell in row):
                return row
    raise DataError(f"{path}: is empty: expected a header line and rows.")


def _without_wide_rows(path: Path, separator: str, skipped: Skipped) -> tuple[str, list[int]]:
    """Returns a CSV's text without the rows that are wider than its header, and which are left."""
    lines: list[str] = []  # of the record that is being read: a quoted value may hold several
    kept, rows, width, row = [], [], 0, 0

    def noted(file: Iterator[str]) -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    limit = csv.field_size_limit(sys.maxsize)  # a text may be longer than csv's own limit
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for cells in csv.reader(noted(file), delimiter=separator, skipinitialspace=True):
                blank = len(cells) < 2 and not any(cell.strip() for cell in cells)
                if not blank and not width:
                    width = len(cells)
                    kept += lines
                elif not blank:
                    row += 1
                    if len(cells) > width:
                        detail = f"{WIDE}: {len(cells)}, expected {width}"
                        skipped.add(WIDE, f"{path}, row {row}", detail)
                    else:
                        kept += lines
                        rows.append(row)
                lines.clear()
    finally:
        csv.field_size_limit(limit)
    return "".join(kept), rows


def check_header(names: list[str], path: Path) -> None:
    """Raises a `DataError` if two columns have one name."""
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: more than one column is called {listing(map(repr, twice))}. Rename them."
        )
