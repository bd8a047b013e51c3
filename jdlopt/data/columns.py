"""The columns of a table as numbers: what each holds, what is wrong with it, and its categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from jdlopt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MOST_PROBLEMS = 10
"""So many of a table's problems are reported at once."""
MOSTLY = 0.5
"""A column of text is one of numbers, some of them damaged, if so many of its texts are numbers."""
DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})([T ].*)?")
DATES_LOOKED_AT = 1000

NOT_A_NUMBER, INFINITE, MISSING, UNUSABLE = (
    "not a number",
    "infinite value",
    "missing value",
    "unusable",
)
"""What can be wrong with a cell; the last, with a whole column."""


class Problem(NamedTuple):
    """What is wrong with some cells of a column, or, said in words, with all of it."""

    kind: str
    cells: Bool[np.ndarray, " rows"]
    column: pd.Series
    words: str = ""

    def message(self, cells: Bool[np.ndarray, " rows"]) -> str:
        """Returns the problem in words, counted over some of its cells."""
        first = int(np.argmax(cells))
        row, value, count = self.column.index[first], shown(self.column, first), int(cells.sum())
        words = {
            UNUSABLE: self.words,
            NOT_A_NUMBER: f"has text in {count} rows, the first is {value} in row {row}",
            INFINITE: f"holds {value} in row {row}: not a float32",
            MISSING: f"has missing values (NaN or empty) in {count} rows, the first in row {row}",
        }[self.kind]
        if self.kind == MISSING and cells.all():
            words = f"has missing values (NaN or empty) in all {count} rows"
        return f"column {self.column.name!r} {words}"


class Column(NamedTuple):
    """One feature: its numbers (NaN where there is none), or its texts (None where missing)."""

    numbers: np.ndarray
    texts: np.ndarray | None
    problems: tuple[Problem, ...] = ()


def read_column(
    column: pd.Series, fit_rows: Int[np.ndarray, " some"], is_category: bool | None = None
) -> Column:
    """Returns a feature column as numbers or texts, and everything that is wrong with it.

    Numbers and booleans are numbers; text is categories, unless at least half of it can be read as
    numbers: then the rest is damage.

    Args:
      column: of a table whose index counts the rows of the file.
      fit_rows: the positions of the training rows, which decide what the column holds.
      is_category: what the column holds, where that was decided before.
    """
    import pandas as pd

    name, nothing = str(column.name), np.full(len(column), np.nan)

    def unusable(why: str) -> Column:
        whole = Problem(UNUSABLE, np.ones(len(column), bool), column, why)
        return Column(nothing, None, (whole,))

    if name.startswith("Unnamed: "):
        return unusable("has no name in the header: a saved row index?")
    if pd.api.types.is_datetime64_any_dtype(column):
        return unusable(f"holds dates; leave it out with data.ignore=({name!r},)")
    declared = isinstance(column.dtype, pd.CategoricalDtype)
    column = column.astype(object) if declared else column
    try:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return unusable(f"holds {column.dtype} values")
    missing = column.isna().to_numpy()
    text = np.isnan(numbers) & ~missing
    undecided = is_category is None
    if undecided:
        present = len(fit_rows) - int(missing[fit_rows].sum())
        is_category = declared or int(text[fit_rows].sum()) > (1 - MOSTLY) * present
    if text.any():
        first = column.iloc[int(np.argmax(text))]
        if not isinstance(first, str):
            return unusable(f"holds {type(first).__name__} objects")
    if is_category:
        texts = as_texts(column)
        if undecided and not declared and _are_dates(texts[fit_rows]):
            return unusable(f"holds dates; leave it out with data.ignore=({name!r},)")
        missing = np.array([value is None for value in texts], dtype=bool)
        return Column(nothing, texts, _problems(column, missing, {}))
    with np.errstate(over="ignore"):
        infinite = np.isinf(numbers.astype(np.float32))
    return Column(
        numbers, None, _problems(column, missing, {NOT_A_NUMBER: text, INFINITE: infinite})
    )


def shown(column: pd.Series, position: int | np.integer) -> str:
    """Returns one of a column's values as a message shows it."""
    value = column.iloc[position]
    return repr(value.item() if isinstance(value, np.generic) else value)


def _problems(
    column: pd.Series, missing: np.ndarray, damaged: Mapping[str, np.ndarray]
) -> tuple[Problem, ...]:
    found = {**damaged, MISSING: missing}
    return tuple(Problem(kind, cells, column) for kind, cells in found.items() if cells.any())


def as_texts(column: pd.Series) -> np.ndarray:
    """Returns a column's values as text without spaces around it; None where there is none.

    A number is written as a CSV would have it, whole ones without a decimal point, so that a column
    that one file holds as text and another as numbers reads alike.
    """
    texts = [
        None if gone else _as_text(value)
        for value, gone in zip(column.astype(object).to_numpy(), column.isna(), strict=True)
    ]
    return np.array(texts, dtype=object)


def texts_of(column: pd.Series) -> np.ndarray:
    """Returns a column of texts; a missing one is empty."""
    values = column.astype(object).to_numpy()
    missing = column.isna().to_numpy()
    return np.array(
        ["" if gone else str(value) for value, gone in zip(values, missing, strict=True)],
        dtype=object,
    )


def _as_text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _are_dates(texts: np.ndarray) -> bool:
    some = [value for value in texts if value is not None][:DATES_LOOKED_AT]
    return bool(some) and 2 * sum(DATE.fullmatch(value) is not None for value in some) >= len(some)


def number_columns(
    table: pd.DataFrame,
    names: Sequence[str],
    where: str,
    allow_missing: bool = False,
    categories: Mapping[str, Sequence[str]] | None = None,
    hash_buckets: int | None = None,
) -> Float32[np.ndarray, "rows columns"]:
    """Returns the named columns as float32, every problem of theirs reported in one message.

    Args:
      table: the file's columns; its index counts the file's rows.
      names: the columns to take, in this order.
      where: names the file, for messages.
      allow_missing: keep missing values as NaN.
      categories: the categories of each column that holds some; the others hold numbers.
      hash_buckets: code categories by so many hashes.

    Raises:
      DataError: text, dates, missing values or infinity in a column, with the first row of each.
    """
    categories = categories or {}
    rows = np.arange(len(table))
    read = {name: read_column(table[name], rows, name in categories) for name in names}
    ignored = (MISSING,) if allow_missing else ()
    raise_problems(read, where, ignored=ignored, remedies=False)
    return as_matrix(read, categories, hash_buckets)


def raise_problems(
    read: Mapping[str, Column],
    where: str,
    ignored: Sequence[str] = (),
    skipped: Bool[np.ndarray, " rows"] | None = None,
    remedies: bool = True,
) -> None:
    """Raises one `DataError` with all problems of the columns, if there are any.

    Args:
      read: the columns by name.
      where: names the file.
      ignored: kinds of problems that are none.
      skipped: rows whose problems don't matter.
      remedies: name the config keys that help; a file to predict on has none.
    """
    kept = True if skipped is None else ~skipped
    found = [
        (problem, cells)
        for column in read.values()
        for problem in column.problems
        if problem.kind not in ignored
        and (cells := problem.cells & (kept if problem.kind != UNUSABLE else True)).any()
    ]
    if not found:
        return
    lines = [problem.message(cells) for problem, cells in found[:MOST_PROBLEMS]]
    if len(found) > MOST_PROBLEMS:
        lines.append(f"and {len(found) - MOST_PROBLEMS} more columns with problems")
    kinds = {problem.kind for problem, _ in found}
    advice = ["Correct these values."]
    if remedies:
        advice = ["Correct these values, or leave the columns out with data.ignore=('NAME', …)."]
        if MISSING in kinds:
            advice.append("data.preprocess.missing='median' fills missing values in.")
        if kinds & {NOT_A_NUMBER, INFINITE}:
            advice.append("data.on_bad='skip' leaves out the rows that hold text or infinity.")
    raise DataError(
        f"{where}: not all features can be used (row 1 is the first below the header)\n"
        + "\n".join(f"  {line}" for line in [*lines, *advice])
    )


def as_matrix(
    read: Mapping[str, Column],
    categories: Mapping[str, Sequence[str]],
    hash_buckets: int | None = None,
) -> Float32[np.ndarray, "rows columns"]:
    """Returns columns side by side: numbers as they are, texts as the codes of their categories.

    Args:
      read: the columns by name.
      categories: the categories of each column of texts.
      hash_buckets: code texts by so many hashes instead.
    """
    rows = len(next(iter(read.values())).numbers)
    matrix = np.empty((rows, len(read)), dtype=np.float32)
    for position, (name, column) in enumerate(read.items()):
        if column.texts is not None:
            from jdlopt.data.preprocess import encode

            matrix[:, position] = (
                encode.codes(list(column.texts), categories[name])
                if hash_buckets is None
                else encode.buckets(list(column.texts), hash_buckets)
            )
        else:
            with np.errstate(over="ignore"):
                matrix[:, position] = column.numbers
    return matrix
