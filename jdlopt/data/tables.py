"""Tables: a CSV or Parquet file with a target column, checked whole when it is opened."""

from __future__ import annotations

import csv
import io
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.data import columns, labelled
from jdlopt.data.damage import Skipped, check_left
from jdlopt.data.dataset import PLAIN, ArrayPool, Arrays, Dataset, Reading, make_dataset
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import fit_rows, make_parts
from jdlopt.data.text_input import TextInput, fit_texts
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

    from jdlopt.data.source import DataFields

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
WIDE = "too many columns"
MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""What stands for a missing value in a CSV, as in pandas."""
Parts = Mapping[str, tuple[str, np.ndarray | None]]


def open_table(path: Path, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a CSV or Parquet file as a dataset of float32 features, or of one column of texts.

    The whole file is parsed and checked for values that can't be used. Its target column (and
    those of group, time and weight) places each row in a split; what the training rows hold then
    decides which columns are numbers and which are categories, and what these are. A category's
    code is its place among them, from 1 on; 0 stands for one that no training row has.

    Args:
      path: the file.
      fields: the data section: ``target``, ``label_delimiter``, ``ignore``, ``task``, ``on_bad``,
        ``group``, ``time``, ``weight``, ``text_column`` and the split's keys.
      reading: what becomes of missing features, how categories are coded and texts cut up.

    Raises:
      DataError: the file, its target or one of its columns can't be used.
    """
    skipped = Skipped()
    skip = fields.on_bad == "skip"
    table = read_table(
        path,
        skipped if skip else None,
        fields.text_column,
        as_text=fields.categorical,
        remedies=True,
    )
    return _dataset(table, fields, reading, str(path), path.stem, skipped)


def open_frame(frame: pd.DataFrame, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a DataFrame as a table read from a file; its index is passed over.

    Args:
      frame: the table; it is not changed.
      fields: the data section, as `open_table` takes it.
      reading: as in `open_table`.

    Raises:
      DataError: its target or one of its columns can't be used, or two have one name.
    """
    import pandas as pd

    names = [str(name) for name in frame.columns]
    _check_header(names, Path("data"))
    table = frame.set_axis(names, axis=1)
    table.index = pd.Index(np.arange(1, len(table) + 1))
    return _dataset(table, fields, reading, "data", "data", Skipped())


def _dataset(
    table: pd.DataFrame,
    fields: DataFields,
    reading: Reading,
    where: str,
    name: str,
    skipped: Skipped,
) -> Dataset:
    """The dataset of a table's columns."""
    features = _feature_names(Path(where), list(table.columns), fields)
    if len(table) == 0:
        left = f": {skipped}" if skipped.counts else ""
        raise DataError(f"{where}: is empty: it has a header but no rows{left}.")
    table, coding, targets, beside = labelled.read_labels(table, fields, where, skipped)
    parts: Parts = make_parts({"train": targets}, fields, coding, lambda: targets, beside)
    categories: dict[str, tuple[str, ...]] = {}
    text_input = None
    if fields.text_column is not None:
        texts = texts_of(table[fields.text_column])
        known = list(texts[fit_rows(parts, fields, len(table))])
        text_input = fit_texts(reading.text, fields.text_column, known)
        shape, dtype = text_input.encode([""]).shape[1:], "int32"
        pool = ArrayPool(len(table), partial(_encoded, text_input, texts, targets))
    else:
        matrix, categories, parts = _features(
            table, features, parts, fields, where, reading, skipped
        )
        shape, dtype = (len(features),), "float32"
        pool = ArrayPool(len(table), partial(Arrays, matrix, targets))
    return make_dataset(
        fields=fields,
        name=name,
        coding=coding,
        inputs=InputSpec(
            shape,
            dtype,
            None if text_input else features,
            categories=categories,
            text=text_input,
        ),
        pools={"train": pool},
        labels=lambda: targets,
        parts=parts,
        reading=reading,
        checked=("train", "validation", "test"),
        skipped=skipped,
        beside=beside,
    )


def _features(
    table: pd.DataFrame,
    names: Sequence[str],
    parts: Parts,
    fields: DataFields,
    where: str,
    reading: Reading,
    skipped: Skipped,
) -> tuple[np.ndarray, dict[str, tuple[str, ...]], Parts]:
    """Returns the features, the categories among them, and the splits without damaged rows."""
    rows = fit_rows(parts, fields, len(table))
    declared = dict.fromkeys(fields.categorical, True)
    read = {name: columns.read_column(table[name], rows, declared.get(name)) for name in names}
    ignored = () if reading.missing == "refuse" else (columns.MISSING,)
    damaged = None
    if fields.on_bad == "skip":
        ignored = (*ignored, columns.NOT_A_NUMBER, columns.INFINITE)
        damaged = _skip_damaged(table, read, where, skipped)
        parts = {
            split: (pool, indices[~damaged[indices]])
            for split, (pool, indices) in parts.items()
            if indices is not None
        }
        for split, (_, indices) in parts.items():
            check_left(indices, split, where, skipped)
        rows = fit_rows(parts, fields, len(table))
    columns.raise_problems(read, where, ignored, damaged)
    categories = {}
    for name, column in read.items():
        if column.texts is not None:
            from jdlopt.data.preprocess import encode

            categories[name] = encode.categories(column.texts[rows])
    return columns.as_matrix(read, categories, reading.hash_buckets), categories, parts


def _skip_damaged(
    table: pd.DataFrame, read: Mapping[str, columns.Column], where: str, skipped: Skipped
) -> np.ndarray:
    """Returns which rows hold damage, each counted for its first."""
    damaged = np.zeros(len(table), bool)
    for name, column in read.items():
        for problem in column.problems:
            if problem.kind not in (columns.NOT_A_NUMBER, columns.INFINITE):
                continue
            for row in np.flatnonzero(problem.cells & ~damaged):
                what = f"{problem.kind}: {columns.shown(table[name], row)} in column {name!r}"
                skipped.add(problem.kind, f"{where}, row {table.index[row]}", what)
            damaged |= problem.cells
    return damaged


def texts_of(column: pd.Series) -> np.ndarray:
    """Returns a column of texts; a missing one is empty."""
    values = column.astype(object).to_numpy()
    missing = column.isna().to_numpy()
    return np.array(
        ["" if gone else str(value) for value, gone in zip(values, missing, strict=True)],
        dtype=object,
    )


def _encoded(text: TextInput, texts: np.ndarray, targets: np.ndarray) -> Arrays:
    return Arrays(text.encode(list(texts)), targets)


def _feature_names(path: Path, names: list[str], fields: DataFields) -> tuple[str, ...]:
    """Returns the feature columns, after checking every column that the data section names."""
    targets = labelled.names_of(fields.target)
    if not targets:
        raise DataError(
            f"{path}: data.target is not set; name the column to predict. "
            f"Columns: {listing(names)}."
        )
    used = [("target", name) for name in targets] + [
        (key, getattr(fields, key))
        for key in (*labelled.BESIDE, "text_column")
        if getattr(fields, key) is not None
    ]
    many = [(key, name) for key in ("ignore", "categorical") for name in getattr(fields, key)]
    named = [*used, *many]
    for key, name in named:
        if name not in names:
            hint = nearest(name, names) or f" Columns: {listing(names)}."
            if len(names) == 1 and ";" in names[0]:
                hint += " The columns seem to be separated by ';': save the file with ','."
            raise DataError(f"{path}: data.{key}: there is no column {name!r}.{hint}")
    if fields.text_column is not None:
        twice = [key for key, name in used if name == fields.text_column]
        if len(twice) > 1:
            raise DataError(f"{path}: data.text_column: {fields.text_column!r} is data.{twice[0]}.")
        return (fields.text_column,)
    taken = {*(name for _, name in used), *fields.ignore}
    features = tuple(name for name in names if name not in taken)
    if not features:
        raise DataError(f"{path}: no feature column is left beside the target {fields.target!r}.")
    return features


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

            _check_header(list(pyarrow.parquet.read_schema(path).names), path)
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
    _check_header(header, path)
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


def _check_header(names: list[str], path: Path) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: more than one column is called {listing(map(repr, twice))}. Rename them."
        )
