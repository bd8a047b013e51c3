"""What stands beside an example's input: its target, and its group, time and weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Num

from jdlopt.data.coding import Coding
from jdlopt.data.columns import MOSTLY, are_dates, as_texts, shown, written
from jdlopt.data.damage import Skipped
from jdlopt.data.fields import DataFields
from jdlopt.data.notation import Notation, parse, stripped
from jdlopt.data.notes import Notes
from jdlopt.data.parts import BESIDE
from jdlopt.data.targets import MAX_INFERRED_CLASSES, encode, infer_coding
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd


def check_named(
    where: str,
    named: Sequence[tuple[str, str | None]],
    columns: Sequence[str],
    what: str = "column",
) -> None:
    """Raises a `DataError` for a key that names a column which there is not.

    Args:
      where: names the file or dataset.
      named: keys of the data section and the column that each names, or None.
      columns: those that there are.
      what: what they are called.
    """
    for key, name in named:
        if name is not None and name not in columns:
            hint = nearest(name, columns) or f" {what.capitalize()}s: {listing(columns)}."
            cut = [one for one in columns if "," in one and name in one]
            if cut and key not in BESIDE:  # a text is cut at its commas
                hint = f" Write names with a comma in quotes: data.{key}={(cut[0],)!r}."
            raise DataError(f"{where}: data.{key}: there is no {what} {name!r}.{hint}")


def beside_named(fields: DataFields) -> list[tuple[str, str]]:
    """Returns the keys of `BESIDE` that the data section sets, and the column that each names."""
    named = [(key, getattr(fields, key)) for key in BESIDE]
    return [(key, name) for key, name in named if name is not None]


def names_of(target: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the columns or features that ``data.target`` names.

    Raises:
      DataError: it names one twice.

    Example:
      >>> names_of("species"), names_of(("height", "weight"))
      (('species',), ('height', 'weight'))
    """
    names = () if target is None else (target,) if isinstance(target, str) else tuple(target)
    if len(set(names)) < len(names):
        raise DataError(f"data.target: names a column twice: {names}.")
    return names


def with_targets(fields: DataFields, known: Sequence[str]) -> DataFields:
    """Returns a data section whose target is several where it names them in one text.

    ``--config.data.target=a,b`` means the columns ``a`` and ``b``, unless one is called ``a,b``.

    Args:
      fields: the data section.
      known: the columns or features that there are.
    """
    target = fields.target
    if not isinstance(target, str) or target in known or "," not in target:
        return fields
    parts = tuple(part.strip() for part in target.split(","))
    if not any(part in known for part in parts):
        return fields
    return dataclasses.replace(fields, target=parts)


def read_labels(
    table: pd.DataFrame,
    fields: DataFields,
    where: str,
    skipped: Skipped,
    notes: Notes | None = None,
    known: Coding | None = None,
) -> tuple[pd.DataFrame, Coding, np.ndarray, dict[str, np.ndarray]]:
    """Returns a table's encoded targets and what else the data section names beside them.

    With ``data.on_bad='skip'``, rows without a target that can be used, or without a group, time or
    weight, are left out and counted.

    Args:
      table: its index counts the file's rows.
      fields: the data section: ``target``, ``label_delimiter``, ``task``, ``on_bad``, ``group``,
        ``time``, ``weight``.
      where: names the file, for messages.
      skipped: where rows that are left out are counted.
      notes: where is noted how texts were read as numbers.
      known: the coding, where another file's targets decided it: then nothing else is read.

    Returns:
      The rows that are left, the targets' coding, the encoded targets, and `beside`'s arrays.

    Raises:
      DataError: one of these columns can't be used.
    """
    names, skip = names_of(fields.target), fields.on_bad == "skip"
    task = fields.task if known is None else known.task
    aside = beside_named(fields) if known is None else []
    what = f"{where}, target column {names[0]!r}"
    usable: np.ndarray | None = None
    if len(names) > 1:
        what = f"{where}, target columns {', '.join(map(repr, names))}"
        raw = usable = _side_by_side(table, names, what, skip, fields.decimal)
    elif fields.label_delimiter is not None:
        raw = as_texts(table[names[0]])  # an example may have no label: none is missing
    else:
        raw = usable = raw_target(table[names[0]], what)
        numbers, notation = _as_numbers(raw, task, fields.decimal, what)
        if numbers is not None:
            task, usable = "regression", numbers
        if numbers is not None and notation is not None:
            raw = numbers if skip else np.where(np.isnan(numbers), raw, numbers)
            if notes is not None:
                first = next(text for text in table[names[0]] if isinstance(text, str))
                notes.add(
                    "changed",
                    f"the target holds {notation.words}",
                    f"column {names[0]!r}, such as {first!r}",
                    int(np.isfinite(numbers).sum()),
                    remedy="data.task='classification' takes them for classes.",
                )
    if skip:
        if usable is not None:
            table, raw = _skip(table, usable, table[list(names)], "target", where, skipped)
        for key, name in aside:
            values = _numbers_or_nan(table[name], key)
            table, raw = _skip(table, values, table[[name]], key, where, skipped, raw)
    delimiter = fields.label_delimiter
    coding = known or infer_coding(raw, task, what, names[1:] and names, delimiter)
    found = all_beside(table, where, fields) if known is None else {}
    return table, coding, encode(raw, coding, what), found


def _side_by_side(
    table: pd.DataFrame, names: Sequence[str], what: str, skip: bool, decimal: str | None
) -> Bool[np.ndarray, "rows columns"] | Num[np.ndarray, "rows columns"]:
    """Returns several target columns: booleans if all are, else numbers, NaN where one is missing.

    Raises:
      DataError: a column holds something else, and such rows are not left out.
    """
    raw = [raw_target(table[name], f"{what}: {name!r}") for name in names]
    if all(values.dtype == bool for values in raw):
        return np.stack(raw, axis=1)
    matrix = np.empty((len(table), len(names)))
    for place, (name, values) in enumerate(zip(names, raw, strict=True)):
        matrix[:, place] = _read_numbers(values, decimal, f"{what}: {names[place]!r}")[0]
        text = np.isnan(matrix[:, place]) & table[name].notna().to_numpy()
        if text.any() and (not skip or text.mean() > MOSTLY):
            first = int(np.argmax(text))
            raise DataError(
                f"{what}: row {table.index[first]} holds {shown(table[name], first)} in {name!r}; "
                "several targets are numbers each, or 0 and 1 (true and false) for labels. For "
                "labels in one text use data.label_delimiter."
            )
    return matrix


def raw_target(column: pd.Series, what: str) -> np.ndarray:
    """Returns a target column's values: numbers, booleans, or text with None where missing.

    Raises:
      DataError: it holds dates.
    """
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        raise DataError(f"{what}: holds dates; expected classes or numbers.")
    if pd.api.types.is_timedelta64_dtype(column):
        return column.dt.total_seconds().to_numpy(np.float64)
    if pd.api.types.is_bool_dtype(column) and not column.isna().any():
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.isna().any():
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        return column.to_numpy()
    values = column.astype(object).to_numpy()
    return np.array([None if pd.isna(value) else str(value) for value in values], dtype=object)


def _as_numbers(
    raw: np.ndarray, task: str, decimal: str | None, what: str
) -> tuple[np.ndarray | None, Notation | None]:
    """Returns text as the numbers to predict that it is meant to hold, NaN for damage, or None.

    Beside them is the notation that they are written in, where it isn't Python's.

    Raises:
      DataError: a comma in them may be decimal, or stand between thousands.
    """
    if raw.dtype != object or task not in ("auto", "regression"):
        return None, None
    if are_dates(raw):
        raise DataError(
            f"{what}: holds dates, such as {next(one for one in raw if one is not None)!r}; "
            "expected classes or numbers. data.task='classification' takes them for classes."
        )
    present = np.array([value is not None for value in raw], dtype=bool)
    numbers, notation = _read_numbers(raw, decimal, what)
    if task == "regression":
        return numbers, notation
    some = numbers[~np.isnan(numbers)]
    classes = len(np.unique(some)) <= MAX_INFERRED_CLASSES and (some == np.floor(some)).all()
    with_unit = notation is not None and bool(notation.affix)
    few = with_unit and len(np.unique(some)) <= MAX_INFERRED_CLASSES
    if classes or few or len(some) < MOSTLY * present.sum():
        return None, None
    return numbers, notation


def _read_numbers(
    raw: np.ndarray, decimal: str | None, what: str
) -> tuple[np.ndarray, Notation | None]:
    """Returns values as numbers, NaN for others, and the notation where it isn't Python's.

    Raises:
      DataError: a comma in them may be decimal, or stand between thousands.
    """
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(raw), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if raw.dtype != object:
        return numbers, None
    texts = np.array([stripped(one) if isinstance(one, str) else None for one in raw], object)
    found = written(texts, np.arange(len(raw)), decimal)
    if found.ambiguous:
        first = next(text for text in texts if text is not None and "," in text)
        raise DataError(
            f"{what}: holds numbers such as {first!r}, whose comma may be decimal or stand between "
            "thousands. Say data.decimal=',' or '.'; data.task='classification' takes them for "
            "classes."
        )
    if found.notation is None:
        return numbers, None
    return parse(list(texts), found.notation), found.notation


def _numbers_or_nan(column: pd.Series, key: str) -> np.ndarray:
    """Returns NaN where a value of this key can't be used."""
    import pandas as pd

    if key in ("group", "split_by"):
        return np.where(column.isna(), np.nan, 0.0)
    if key == "time":
        values, bad = _times(column)
        return np.where(bad, np.nan, values)
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _skip(
    table: pd.DataFrame,
    values: np.ndarray,
    columns: pd.DataFrame,
    key: str,
    where: str,
    skipped: Skipped,
    raw: np.ndarray | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Leaves out the rows whose value is missing or not finite; returns the table and targets."""
    raw = values if raw is None else raw
    if values.dtype.kind == "f":
        good = np.isfinite(values).reshape(len(values), -1)
    elif values.dtype == object:
        good = np.array([[value is not None] for value in values], dtype=bool)
    else:
        return table, raw
    keep = good.all(axis=1)
    for row in np.flatnonzero(~keep):
        column = columns.iloc[:, int(np.argmin(good[row]))]
        detail = f"its {key} is {shown(column, row)}"
        skipped.add(f"no {key}", f"{where}, row {table.index[row]}", detail)
    return table[keep], raw[keep]


def all_beside(table: pd.DataFrame, where: str, fields: DataFields) -> dict[str, np.ndarray]:
    """Returns the columns that decide on a table's rows, by the keys that name them: see `beside`.

    Args:
      table: its index counts the file's rows.
      where: names the file, for messages.
      fields: the data section.

    Raises:
      DataError: a value is missing or can't be used, with its row.
    """
    return {
        key: beside(table[name], key, f"{where}, data.{key} column {name!r}")
        for key, name in beside_named(fields)
    }


def beside(column: pd.Series, key: str, what: str) -> np.ndarray:
    """Returns a column that decides on its rows' place or share: see the keys of `BESIDE`.

    Args:
      column: its index counts the file's rows.
      key: ``group``: any values; each row gets its group's number. ``time``: numbers, dates, or
        text that ISO 8601 allows for, such as ``2024-03-01``; ordered as they follow one another.
        ``weight``: numbers of at least 0. ``split_by``: any values, as text.
      what: names the column, for messages.

    Raises:
      DataError: a value is missing or can't be used, with its row.
    """
    import pandas as pd

    if key in ("group", "split_by"):
        bad = column.isna().to_numpy()
        _refuse(column, bad, what, "a group" if key == "group" else "a key")
        if key == "split_by":
            return np.array([text or "" for text in as_texts(column)], object)
        texts = column.astype(object).map(str).to_numpy(dtype=object)
        return np.unique(texts, return_inverse=True)[1]
    if key == "time":
        values, bad = _times(column)
        _refuse(column, bad, what, "a number, a date, or text such as '2024-03-01T12:30'")
        return values
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    _refuse(column, ~np.isfinite(values) | (values < 0), what, "a finite number of at least 0")
    return values


def _times(column: pd.Series) -> tuple[np.ndarray, Bool[np.ndarray, " rows"]]:
    """Returns times as numbers in their order, and which can't be read as times."""
    import pandas as pd

    missing = column.isna().to_numpy()
    if pd.api.types.is_timedelta64_dtype(column):
        return column.dt.total_seconds().to_numpy(np.float64), missing
    if not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        values = numbers.to_numpy(np.float64, na_value=np.nan)
        if not (np.isnan(values) & ~missing).any():
            bad = ~np.isfinite(values)
            exact = numbers.dtype.kind in "iu" and not bad.any()
            return (numbers.to_numpy() if exact else values), bad
        column = pd.to_datetime(column.astype(str), errors="coerce", format="ISO8601", utc=True)
        missing = missing | column.isna().to_numpy()
    return pd.DatetimeIndex(column).asi8, missing


def _refuse(column: pd.Series, bad: np.ndarray, what: str, expected: str) -> None:
    if bad.any():
        first = int(np.argmax(bad))
        value = "a missing value" if column.isna().iloc[first] else shown(column, first)
        raise DataError(
            f"{what}: row {column.index[first]} holds {value}, one of {int(bad.sum())} rows that "
            f"can't be used; expected {expected}. Correct these rows, or leave them out with "
            "data.on_bad='skip'."
        )
