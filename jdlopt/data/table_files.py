"""Files of tables: CSV, TSV, Parquet and JSON, as columns by name."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.data import csv_text
from jdlopt.data.csv_text import UNNAMED, CsvText, check_header, endings
from jdlopt.data.damage import Skipped
from jdlopt.data.missing_words import without_words
from jdlopt.data.notes import Notes
from jdlopt.data.split import split_named
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd

CSV, PARQUET, JSON = (".csv", ".tsv"), (".parquet", ".pq"), (".json", ".jsonl", ".ndjson")
SUFFIXES = (*CSV, *PARQUET, *JSON)
WIDE = "too many columns"
PART = re.compile(r"-\d{5}-of-\d{5}$")
PARTS_JOINED = "the parts of a folder are read as one table"


def is_table(path: Path) -> bool:
    """Returns whether a path is a table by its ending, or a folder of Parquet parts or of splits.

    Example:
      >>> is_table(Path("a.csv.gz")), is_table(Path("a.png"))
      (True, False)
    """
    if path.is_dir():
        parts = any(path.glob("*.parquet")) or any(path.glob("*=*/*.parquet"))
        return parts or bool(split_tables(path))
    ending, compression = endings(path)
    return ending in SUFFIXES and not (compression and ending in PARQUET)


def split_tables(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the tables that a folder has for splits, by their names; none without ``train``.

    One is called by the split's name, ``train.csv``, or is a part of it, as the files of Hugging
    Face's datasets are: ``train-00000-of-00002.parquet``. A folder that holds folders has none.

    Raises:
      DataError: two tables are called by the name of one split.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith((".", "_")):
                return {}
        elif is_table(path):
            split = split_named(PART.sub("", path.name.split(".")[0]))
            if split is not None:
                found.setdefault(split, []).append(path)
    if "train" not in found:
        return {}
    for split, paths in found.items():
        parts = [PART.search(path.name.split(".")[0]) is not None for path in paths]
        if len(paths) > 1 and not all(parts):
            raise DataError(
                f"{folder}: has several tables for the split {split!r}: "
                f"{listing(path.name for path in paths)}. Leave one, or name the files with "
                "data.source, data.validation_source and data.test_source."
            )
    return {split: tuple(paths) for split, paths in found.items()}


def read_table(
    path: Path,
    skipped: Skipped | None = None,
    raw_text: str | None = None,
    as_text: Sequence[str] = (),
    remedies: bool = False,
    missing_values: Sequence[str] | None = None,
    decimal: str | None = None,
    notes: Notes | None = None,
    strict: Collection[str | None] | None = (),
) -> pd.DataFrame:
    """Returns a table's columns; the index counts its rows from 1.

    Args:
      path: a CSV or TSV file, maybe compressed, a Parquet file or a folder of them, a folder of
        tables of splits, of which it is ``train``, or JSON: a list of objects, or (``.jsonl``) an
        object a line. Row 1 of a CSV is the first below the header,
        and blank lines are none.
      skipped: where rows with more values than the header has names are counted; None refuses
        them.
      raw_text: a column whose texts are kept to the letter: ``NA`` and an empty one are texts.
      as_text: columns of a CSV that are read as text, even if all they hold are numbers.
      remedies: name the config key that leaves such rows out; a file to predict on has none.
      missing_values: the words that stand for a missing value; None: the usual ones in a CSV, and
        none in files that have missing values of their own.
      decimal: the decimal sign of a CSV's numbers; a point if None.
      notes: where is noted what was guessed, changed or left out.
      strict: columns in which no word that may be missing is a category; None: all. See
        `jdlopt.data.missing_words.without_words`.

    Raises:
      DataError: the file can't be parsed, or two of its columns have one name.
    """
    import pandas as pd

    notes = Notes() if notes is None else notes
    found = split_tables(path) if path.is_dir() else {}
    if found:
        read = [
            read_table(
                one, skipped, raw_text, as_text, remedies, missing_values, decimal, notes, strict
            )
            for one in found["train"]
        ]
        return joined_parts(read, path, notes)
    ending = endings(path)[0] if path.is_file() else PARQUET[0]
    hint = " data.on_bad='skip' leaves such rows out." if remedies else ""
    rows: list[int] | None = None
    words = bool(missing_values)
    try:
        if ending in PARQUET:
            table = _read_parquet(path, notes)
        elif ending in JSON:
            table = _read_json(path, ending, notes)
        else:
            table, rows = _read_csv(path, skipped, raw_text, as_text, decimal or ".", notes)
            words = missing_values is None or bool(missing_values)
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
        kind = {".parquet": "Parquet", ".pq": "Parquet", **dict.fromkeys(JSON, "JSON")}
        reason = " ".join(str(error).split())
        hint = f".{hint}" if hint and "fields in line" in reason else ""  # a row is too wide
        what = kind.get(ending, "CSV in UTF-8")
        raise DataError(f"{path}: can't be read as {what}: {reason}{hint}") from error
    table.columns = [str(name) for name in table.columns]
    table.index = pd.Index(
        np.arange(1, len(table) + 1) if rows is None or len(rows) != len(table) else rows
    )
    table = _without_empty(table, notes)
    if words:
        texts = (*as_text, raw_text)
        table = without_words(table, missing_values, texts, raw_text, notes, strict)
    return table


def joined_parts(read: Sequence[pd.DataFrame], folder: Path, notes: Notes) -> pd.DataFrame:
    """Returns tables of the same columns as one, whose index counts its rows from 1."""
    import pandas as pd

    if len(read) == 1:
        return read[0]
    notes.add("changed", PARTS_JOINED, str(folder), len(read), "files")
    table = pd.concat(read, ignore_index=True)
    table.index = pd.Index(np.arange(1, len(table) + 1))
    return table


# --- kinds of files -------------------------------------------------------------------------------


def _read_csv(
    path: Path,
    skipped: Skipped | None,
    raw_text: str | None,
    as_text: Sequence[str],
    decimal: str,
    notes: Notes,
) -> tuple[pd.DataFrame, list[int] | None]:
    """Returns the table, and which row of the file each is, where some were left out."""
    import pandas as pd

    with csv_text.open_text(path, notes) as opened, csv_text.long_fields():
        names = opened.names
        check_header(list(opened.header), path)
        file: Any = opened.file
        rows: list[int] | None = None
        if skipped is not None:
            text, rows = _without_wide_rows(opened, path, skipped)
            file = io.StringIO(text)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with too many values
            table = pd.read_csv(
                file,
                sep=opened.separator,
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
                decimal=decimal,
                header=0,
                names=names,
                dtype={name: "str" for name in (*as_text, raw_text) if name in names},
                keep_default_na=False,
                na_values={name: [""] for name in names if name != raw_text},
            )
    return table, rows


def _without_wide_rows(opened: CsvText, path: Path, skipped: Skipped) -> tuple[str, list[int]]:
    """Returns a CSV's text without the rows that are wider than its header, and which are left."""
    lines: list[str] = []  # of the record that is being read: a quoted value may hold several
    kept, rows, width, row = [], [], 0, 0

    def noted(file: Iterator[str]) -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    for cells in csv_text.reader(noted(opened.file), opened.separator):
        blank = len(cells) < 2 and not any(cell.strip() for cell in cells)
        if not blank and not width:
            width = len(opened.names)
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
    return "".join(kept), rows


def _read_parquet(path: Path, notes: Notes) -> pd.DataFrame:
    """Returns a Parquet file, or the parts of a folder, the columns of an index among them."""
    import pandas as pd
    import pyarrow.parquet

    if path.is_file():
        check_header(list(pyarrow.parquet.read_schema(path).names), path)
    else:
        parts = sorted(path.rglob("*.parquet"))
        notes.add("changed", PARTS_JOINED, str(path), len(parts), "files")
    return index_as_columns(pd.read_parquet(path, engine="pyarrow"), str(path), notes)


def index_as_columns(table: pd.DataFrame, where: str, notes: Notes) -> pd.DataFrame:
    """Returns a DataFrame whose index, where it has a name, is a column like any other.

    Raises:
      DataError: a column has the name of the index.
    """
    named = [name for name in table.index.names if name is not None]
    if not named:
        if table.index.dtype.kind not in "iu":
            what = "the index of the DataFrame, which has no name"
            notes.add("left out", what, where, remedy="Give it a name to have it as a column.")
        return table.reset_index(drop=True)
    twice = [str(name) for name in named if name in table.columns]
    if twice:
        raise DataError(
            f"{where}: the index and a column are both called {twice[0]!r}. Rename one of them."
        )
    for name in named:
        notes.add(
            "changed",
            "the index of the DataFrame is a column",
            repr(str(name)),
            unit="columns",
            remedy="data.ignore leaves it out.",
        )
    unnamed = [level for level, name in enumerate(table.index.names) if name is None]
    table = table.reset_index(level=unnamed, drop=True) if unnamed else table
    return table.reset_index()


def _read_json(path: Path, ending: str, notes: Notes) -> pd.DataFrame:
    """Returns a list of objects, or an object a line, with a column for each key."""
    import pandas as pd

    text = csv_text.read_text(path, notes)
    if ending == ".json":
        found = json.loads(text)
        if isinstance(found, dict):  # columns by name, each a list or an object by row
            columns = {
                name: list(one.values()) if isinstance(one, dict) else one
                for name, one in found.items()
            }
            if not all(isinstance(one, list) for one in columns.values()):
                raise DataError(
                    f"{path}: is an object of {listing(found)}; expected a list of objects, a row "
                    "each, or an object of columns."
                )
            return pd.DataFrame(columns)
    else:
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f"{path}: expected a list of objects, a row each, by the columns' names.")
    return pd.DataFrame.from_records(found) if found else pd.DataFrame()


# --- what the cells hold --------------------------------------------------------------------------


def _without_empty(table: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """Leaves out columns without a name or value: the header or the rows end in a separator."""
    empty = [
        name for name in table.columns if name.startswith(UNNAMED) and table[name].isna().all()
    ]
    for name in empty:
        notes.add("left out", "columns without a name and without a value", name, unit="columns")
    return table.drop(columns=empty)
