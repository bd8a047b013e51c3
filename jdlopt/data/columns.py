"""The columns of a table as numbers: what each holds, what is wrong with it, and its categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from jdlopt.data.csv_text import UNNAMED
from jdlopt.data.notation import Found, Notation, find, is_plain, parse, stripped
from jdlopt.data.notes import Notes
from jdlopt.data.precision import LARGEST_EXACT, Offset, less, offset_of
from jdlopt.data.spec import InputSpec
from jdlopt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MOST_PROBLEMS = 10
"""So many of a table's problems are reported at once."""
MOSTLY = 0.5
"""A column of text is one of numbers, some of them damaged, if so many of its texts are numbers."""
MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    rf"|\d{{1,2}}[ -]{MONTH}[ ,-]*\d{{2,4}}|{MONTH}\.? \d{{1,2}},? \d{{4}}"
    r")([T ].*)?",
    re.IGNORECASE,
)
DATES_LOOKED_AT = 1000
TEXTS_LOOKED_AT = 5000
"""Different texts that tell how a column writes its numbers."""

NOT_A_NUMBER, INFINITE, MISSING, UNUSABLE = (
    "not a number",
    "infinite value",
    "missing value",
    "unusable",
)
"""What can be wrong with a cell; the last, with a whole column."""
SECONDS = Notation("", "seconds")
"""Of a column of durations."""


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
    """One feature.

    Attributes:
      numbers: NaN where there is none.
      texts: of categories, None where missing; None for numbers.
      problems: what is wrong with it.
      notation: how its texts write numbers, where they do so in another way than Python.
      exact: the whole numbers themselves, where a float64 would round some.
    """

    numbers: np.ndarray
    texts: np.ndarray | None
    problems: tuple[Problem, ...] = ()
    notation: Notation | None = None
    exact: np.ndarray | None = None


def read_column(
    column: pd.Series,
    fit_rows: Int[np.ndarray, " some"],
    is_category: bool | None = None,
    known: Notation | str | None = None,
) -> Column:
    """Returns a feature column as numbers or texts, and everything that is wrong with it.

    Numbers, booleans and durations (in seconds) are numbers. Text is, too, if at least half of it
    can be read as numbers, or most of it in one notation: then the rest is damage. Other text is
    categories.

    Args:
      column: of a table whose index counts the rows of the file.
      fit_rows: the positions of the training rows, which decide what the column holds.
      is_category: what the column holds, where that was decided before.
      known: the notation of its numbers, where that was decided before, or their decimal sign.
    """
    import pandas as pd

    name, nothing = str(column.name), np.full(len(column), np.nan)

    def unusable(why: str) -> Column:
        whole = Problem(UNUSABLE, np.ones(len(column), bool), column, why)
        return Column(nothing, None, (whole,))

    if name.startswith(UNNAMED):
        return unusable("has no name in the header: a saved row index?")
    if pd.api.types.is_datetime64_any_dtype(column):
        return unusable(f"holds dates; leave it out with data.ignore=({name!r},)")
    declared = isinstance(column.dtype, pd.CategoricalDtype)
    column = column.astype(object) if declared else column
    missing = column.isna().to_numpy()
    if pd.api.types.is_timedelta64_dtype(column):
        seconds = column.dt.total_seconds().to_numpy(np.float64)
        return Column(seconds, None, _problems(column, missing, {}), SECONDS)
    try:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return unusable(f"holds {column.dtype} values")
    text = np.isnan(numbers) & ~missing
    notation, texts = None, None
    if text.any() or (known is not None and pd.api.types.is_string_dtype(column)):
        first = column.iloc[int(np.argmax(text if text.any() else ~missing))]
        if text.any() and not isinstance(first, str):
            return unusable(f"holds {type(first).__name__} objects")
        if isinstance(first, str) and not is_category and not declared:
            texts = as_texts(column)
            found = written(texts, fit_rows, known)
            if found.ambiguous:
                return unusable(
                    f"holds numbers such as {shown(column, int(np.argmax(text)))}, whose comma may "
                    "be decimal or stand between thousands; say data.decimal=',' or '.'"
                )
            if found.notation is not None:
                notation, numbers = found.notation, parse(list(texts), found.notation)
                missing = np.array([value is None for value in texts], bool)
                text = np.isnan(numbers) & ~missing
    undecided = is_category is None
    if undecided:
        present = len(fit_rows) - int(missing[fit_rows].sum())
        is_category = declared or int(text[fit_rows].sum()) > (1 - MOSTLY) * present
    if is_category:
        texts = as_texts(column) if texts is None else texts
        if undecided and not declared and are_dates(texts[fit_rows]):
            return unusable(f"holds dates; leave it out with data.ignore=({name!r},)")
        missing = np.array([value is None for value in texts], dtype=bool)
        return Column(nothing, texts, _problems(column, missing, {}))
    with np.errstate(over="ignore"):
        infinite = np.isinf(numbers.astype(np.float32))
    problems = _problems(column, missing, {NOT_A_NUMBER: text, INFINITE: infinite})
    return Column(numbers, None, problems, notation, _exact(column, numbers))


def written(
    texts: np.ndarray, fit_rows: Int[np.ndarray, " some"], known: Notation | str | None
) -> Found:
    """Returns the notation of a column of text, where it is another than Python's.

    Args:
      texts: without spaces around them; None where one is missing.
      fit_rows: the positions of the training rows, which decide.
      known: the notation, or its decimal sign, where that was decided before.
    """
    if isinstance(known, Notation):
        return Found(known if known.decimal else None)
    different = list(dict.fromkeys(text for text in texts[fit_rows] if text is not None))
    different = different[:: -(-len(different) // TEXTS_LOOKED_AT) or 1]
    found = find(different, known)
    if found.notation == Notation():  # nothing but Python's, unless thousands stand apart
        read = np.isfinite(parse(different, found.notation)).sum()
        return found if read > sum(map(is_plain, different)) else Found(None)
    return found


def _exact(column: pd.Series, numbers: np.ndarray) -> np.ndarray | None:
    """Returns whole numbers as they are, None where missing, if a float64 rounds some of them."""
    if getattr(column.dtype, "kind", "") not in "iu" or not len(numbers):
        return None
    if not np.nanmax(np.abs(numbers), initial=0.0) > LARGEST_EXACT:
        return None
    missing = column.isna().to_numpy()
    values = column.astype(object).to_numpy()
    return np.array([None if gone else int(v) for v, gone in zip(values, missing)], dtype=object)


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
    return stripped(str(value)) or None


def are_dates(texts: np.ndarray) -> bool:
    """Returns whether at least half of some texts are dates; None stands for a missing one."""
    some = [value for value in texts if value is not None][:DATES_LOOKED_AT]
    return bool(some) and 2 * sum(DATE.fullmatch(value) is not None for value in some) >= len(some)


def number_columns(
    table: pd.DataFrame, spec: InputSpec, where: str, notes: Notes | None = None
) -> Float32[np.ndarray, "rows columns"]:
    """Returns the features of a table as in training, every problem of theirs in one message.

    Args:
      table: the file's columns; its index counts the file's rows.
      spec: of the input: its ``feature_names`` are the columns, in this order.
      where: names the file, for messages.
      notes: where is counted what was in no training example.

    Raises:
      DataError: text, dates, missing values or infinity in a column, with the first row of each.
    """
    rows = np.arange(len(table))
    read = {
        name: read_column(table[name], rows, name in spec.categories, spec.notations.get(name))
        for name in spec.feature_names or ()
    }
    ignored = (MISSING,) if spec.missing == "fill" else ()
    raise_problems(read, where, ignored=ignored, remedies=False)
    if notes is not None:
        for name, one in read.items():
            if one.notation is not None and name not in spec.notations:
                count = int(np.isfinite(one.numbers).sum())
                place = f"column {name!r} holds {one.notation.words}"
                notes.add(
                    "changed", "numbers are written in another way than in training", place, count
                )
    if notes is not None and spec.hash_buckets is None:
        for name, categories in spec.categories.items():
            note_unseen(notes, name, read[name].texts, categories)
    return as_matrix(read, spec.categories, spec.hash_buckets, spec.offsets)


UNSEEN = "categories that no training row has"


def note_unseen(
    notes: Notes,
    name: str,
    texts: np.ndarray | None,
    categories: Sequence[str],
    where: str = "",
    what: str = UNSEEN,
) -> None:
    """Counts the values of a column of categories that are none of those known."""
    known = {None, *categories}
    new = [] if texts is None else [text for text in texts if text not in known]
    if new:
        place = f"column {name!r}{where}: {len(new)}, such as {new[0]!r}"
        notes.add("unseen", what, place, len(new))


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


def _less(column: Column, offset: Offset) -> np.ndarray:
    if column.exact is None:
        return less(column.numbers, offset)
    whole = [np.nan if value is None else value - int(offset) for value in column.exact]
    return np.array(whole, np.float64)


def offset_in(column: Column, rows: Int[np.ndarray, " some"]) -> Offset:
    """Returns what is taken off a column before the cast to float32, as its training rows say."""
    if column.texts is not None:
        return 0
    exact = None if column.exact is None else [column.exact[row] for row in rows]
    return offset_of(column.numbers[rows], exact)


def notations_of(read: Mapping[str, Column], decimal: str | None) -> dict[str, Notation]:
    """Returns the notation of each column of numbers that isn't Python's, for other files."""
    usual = Notation(decimal) if decimal == "," else None
    found = {
        name: column.notation or usual for name, column in read.items() if column.texts is None
    }
    return {name: one for name, one in found.items() if one is not None}


def as_matrix(
    read: Mapping[str, Column],
    categories: Mapping[str, Sequence[str]],
    hash_buckets: int | None = None,
    offsets: Sequence[Offset] = (),
) -> Float32[np.ndarray, "rows columns"]:
    """Returns columns side by side: numbers as they are, texts as the codes of their categories.

    Args:
      read: the columns by name.
      categories: the categories of each column of texts.
      hash_buckets: code texts by so many hashes instead.
      offsets: what is taken off each column before the cast; empty for nothing.
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
            offset = offsets[position] if offsets else 0
            with np.errstate(over="ignore"):
                matrix[:, position] = _less(column, offset) if offset else column.numbers
    return matrix
