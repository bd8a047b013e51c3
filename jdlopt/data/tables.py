"""Tables: a CSV or Parquet file with a target column, checked whole when it is opened."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from jdlopt.data.dataset import ArrayPool, Arrays, Dataset, make_dataset
from jdlopt.data.targets import encode, infer_coding
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
MOST_PROBLEMS = 10
"""So many of a table's problems are told at once."""


def open_table(path: Path, fields: Any, allow_missing: bool = False) -> Dataset:
    """Opens a CSV or Parquet file as a dataset of float32 features.

    The whole file is parsed and checked for values that can't be used. Its target column places
    each row in a split; nothing else of a test row is looked at before ``read("test")``.

    Args:
      path: the file.
      fields: the data section: ``target``, ``ignore``, ``task`` and the split's keys.
      allow_missing: keep missing features as NaN.

    Raises:
      DataError: the file, its target or one of its columns can't be used.
    """
    table = read_table(path)
    names = [str(name) for name in table.columns]
    table.columns = names
    if fields.target is None:
        raise DataError(
            f"{path}: data.target is not set; name the column to predict. "
            f"Columns: {listing(names)}."
        )
    for key, name in [("data.target", fields.target), *(("data.ignore", n) for n in fields.ignore)]:
        if name not in names:
            hint = nearest(name, names) or f" Columns: {listing(names)}."
            if len(names) == 1 and ";" in names[0]:
                hint += " The columns seem to be separated by ';': save the file with ','."
            raise DataError(f"{path}: {key}: there is no column {name!r}.{hint}")
    if len(table) == 0:
        raise DataError(f"{path}: is empty: it has a header but no rows.")
    features = [name for name in names if name != fields.target and name not in fields.ignore]
    if not features:
        raise DataError(f"{path}: no feature column is left beside the target {fields.target!r}.")
    what = f"{path}, target column {fields.target!r}"
    raw_targets = _raw_target(table[fields.target], what)
    coding = infer_coding(raw_targets, fields.task, what)
    arrays = Arrays(
        number_columns(table, features, str(path), allow_missing),
        encode(raw_targets, coding, what),
    )
    return make_dataset(
        fields=fields,
        name=path.stem,
        coding=coding,
        feature_names=tuple(features),
        input_shape=(len(features),),
        input_dtype="float32",
        pools={"train": ArrayPool(len(table), partial(_same, arrays))},
        labels=lambda: arrays.targets,
        allow_missing=allow_missing,
    )


def _same(arrays: Arrays) -> Arrays:
    return arrays


def read_table(path: Path) -> pd.DataFrame:
    """Returns a CSV, TSV or Parquet file's columns, as they are typed there.

    Raises:
      DataError: the file can't be parsed, or two of its columns have one name.
    """
    import pandas as pd

    suffix = path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            import pyarrow.parquet

            _check_header(list(pyarrow.parquet.read_schema(path).names), path)
            return pd.read_parquet(path, engine="pyarrow")
        separator = "\t" if suffix == ".tsv" else ","
        _check_header(_csv_header(path, separator), path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with too many values
            return pd.read_csv(
                path,
                sep=separator,
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
            )
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: a row has more values than the header has names ({error}). "
            "Correct the row, or quote values that contain the separator."
        ) from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it.") from error
    except DataError:
        raise
    except Exception as error:  # the parsers let all kinds through on damaged bytes
        kind = "Parquet" if suffix in (".parquet", ".pq") else "CSV in UTF-8"
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: can't be read as {kind}: {reason}") from error


def _csv_header(path: Path, separator: str) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file, delimiter=separator, skipinitialspace=True):
            if any(cell.strip() for cell in row):
                return row
    raise DataError(f"{path}: is empty: expected a header line and rows.")


def _check_header(names: list[str], path: Path) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: more than one column is called {listing(map(repr, twice))}. Rename them."
        )


def _raw_target(column: pd.Series, what: str) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        raise DataError(f"{what}: holds dates; expected classes or numbers.")
    if pd.api.types.is_bool_dtype(column) and not column.isna().any():
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.isna().any():
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        return column.to_numpy()
    values = column.astype(object).to_numpy()
    return np.array([None if pd.isna(value) else str(value) for value in values], dtype=object)


def number_columns(
    table: pd.DataFrame, names: Sequence[str], where: str, allow_missing: bool = False
) -> Float32[np.ndarray, "rows columns"]:
    """Returns the named columns as float32, every problem of theirs told in one message.

    Args:
      table: the file's columns.
      names: the columns to take, in this order.
      where: names the file, for messages.
      allow_missing: keep missing values as NaN.

    Raises:
      DataError: text, dates, missing values or infinity in a column, with the first row of each.
    """
    numbers = np.empty((len(table), len(names)), dtype=np.float32)
    problems = []
    for position, name in enumerate(names):
        numbers[:, position], problem = _numbers(table[name], name, allow_missing)
        problems += [problem] if problem else []
    if problems:
        shown = problems[:MOST_PROBLEMS]
        if len(problems) > MOST_PROBLEMS:
            shown.append(f"and {len(problems) - MOST_PROBLEMS} more columns with problems")
        raise DataError(
            f"{where}: not all features are numbers (row 1 is the first below the header)\n"
            + "\n".join(f"  {problem}" for problem in shown)
            + "\n  Correct these values, or leave the columns out with data.ignore=('NAME', …)."
        )
    return numbers


def _numbers(column: pd.Series, name: str, allow_missing: bool) -> tuple[Any, str | None]:
    import pandas as pd

    if name.startswith("Unnamed: "):
        return np.nan, f"column {name!r} has no name in the header: a saved row index?"
    if pd.api.types.is_datetime64_any_dtype(column):
        return np.nan, f"column {name!r} holds dates"
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    try:
        parsed = pd.to_numeric(column, errors="coerce")
        values = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return np.nan, f"column {name!r} holds {column.dtype} values"
    missing = column.isna().to_numpy()
    text = np.isnan(values) & ~missing
    if text.any():
        first = int(np.argmax(text))
        if not isinstance(column.iloc[first], str):
            return np.nan, f"column {name!r} holds {type(column.iloc[first]).__name__} objects"
        return np.nan, (
            f"column {name!r} has text in {int(text.sum())} rows, "
            f"the first is {column.iloc[first]!r} in row {first + 1}"
        )
    if missing.any() and not allow_missing:
        return np.nan, (
            f"column {name!r} has missing values (NaN or empty) in {int(missing.sum())} rows, "
            f"the first in row {int(np.argmax(missing)) + 1}"
        )
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if np.isinf(numbers).any():
        first = int(np.argmax(np.isinf(numbers)))
        return np.nan, f"column {name!r} holds {values[first]:g} in row {first + 1}: not a float32"
    return numbers, None
