"""Words that stand for missing values in a table's texts: which do, which may, and what is said."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jdlopt.data.notation import find, stripped
from jdlopt.data.notes import Notes
from jdlopt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MISSING_WORDS = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""What stands for a missing value in a CSV beside an empty cell, as in pandas."""
WORDS_ARE_MISSING = "words that are taken for missing values"
TAKES_WORDS = "data.missing_values=('NA', …) takes the words that it names for missing ones."
KEEPS_WORDS = "data.missing_values=() takes them as they stand, another tuple names other words."
AMBIGUOUS = ("NA", "N/A", "n/a", "None")
"""Of these, the words that are names as well, of a country or of nothing at all: where a feature is
of categories, they are one."""
WORDS_ARE_CATEGORIES = "words that may stand for a missing value are categories"
MOSTLY = 0.5
"""A column holds numbers if at least this share of its other texts are."""
LOOKED_AT = 5000


@contextlib.contextmanager
def words_told(notes: Notes) -> Iterator[None]:
    """Says with an error about missing values which words were taken for them in its columns."""
    try:
        yield
    except DataError as error:
        words = [
            note
            for note in notes
            if note.what == WORDS_ARE_MISSING
            and any(_column_in(place) in str(error) for place in note.places)
        ]
        if words and "missing value" in str(error):
            raise DataError("\n".join((str(error), *map(str, words)))) from error
        raise


def _column_in(place: str) -> str:
    """Returns the column, in quotes, that a note of `without_words` counts words in."""
    return place.partition("column ")[2].rpartition("': ")[0] + "'"


def without_words(
    table: pd.DataFrame,
    words: Sequence[str] | None,
    texts: Collection[str | None],
    raw: str | None,
    notes: Notes,
    strict: Collection[str | None] | None = (),
) -> pd.DataFrame:
    """Returns columns of text with words made missing values; what is left may be numbers.

    Args:
      table: the columns.
      words: those that stand for a missing value; None: `MISSING_WORDS`, of which the `AMBIGUOUS`
        stay in columns of categories.
      texts: columns that stay text.
      raw: the column that is kept to the letter.
      notes: where the words are counted.
      strict: columns in which no word is a category, such as the target; None: all.
    """
    given = {word.strip() for word in (MISSING_WORDS if words is None else words)}
    made: dict[str, pd.Series] = {}
    for name in table.columns:
        column = table[name]
        if name == raw or (column.dtype.kind not in "OU" and str(column.dtype) != "str"):
            continue
        cells = [stripped(one) if isinstance(one, str) else one for one in column.astype(object)]
        found = np.array([isinstance(one, str) and one in given for one in cells], bool)
        if words is None and strict is not None and name not in strict:
            maybe = np.array([isinstance(one, str) and one in AMBIGUOUS for one in cells], bool)
            others = [one for one, is_word in zip(cells, found) if not is_word and one == one]
            if maybe.any() and (are_words(others) if others else name in texts):
                _count(notes, WORDS_ARE_CATEGORIES, name, cells, maybe, TAKES_WORDS)
                found &= ~maybe
        if not found.any():
            continue
        _count(notes, WORDS_ARE_MISSING, name, cells, found, KEEPS_WORDS)
        made[name] = column.mask(found)
        if name not in texts:
            made[name] = _inferred(made[name])
    return table.assign(**made) if made else table


def _count(
    notes: Notes, what: str, name: str, cells: Sequence[object], found: np.ndarray, remedy: str
) -> None:
    counts = collections.Counter(str(one) for one, is_word in zip(cells, found) if is_word)
    told = ", ".join(f"{word!r} {count} times" for word, count in counts.most_common(3))
    notes.add("guessed", what, f"column {name!r}: {told}", int(found.sum()), remedy=remedy)


def are_words(texts: Sequence[object]) -> bool:
    """Returns whether texts are words: no numbers in any notation, no truth values.

    Example:
      >>> are_words(["DE", "FR"]), are_words(["12 %", "7 %"]), are_words(["1.5", "x", "2"])
      (True, False, False)
    """
    import pandas as pd

    different = list(dict.fromkeys(texts))[:LOOKED_AT]
    as_text = [one for one in different if isinstance(one, str)]
    if {one.lower() for one in as_text} <= {"true", "false"}:
        return False
    numbers = pd.to_numeric(pd.Series(different, dtype=object), errors="coerce").notna().sum()
    notation = find(as_text)
    mostly = bool(numbers >= MOSTLY * len(different))
    return notation.notation is None and not notation.ambiguous and not mostly


def _inferred(column: pd.Series) -> pd.Series:
    """Returns texts as numbers or booleans where all of them are."""
    import pandas as pd

    present = column.dropna()
    if len(present) and set(present.str.lower()) <= {"true", "false"}:
        return column.map(lambda one: one.lower() == "true", na_action="ignore").astype(object)
    with contextlib.suppress(ValueError, TypeError):
        numbers = pd.to_numeric(column)
        if int(numbers.isna().sum()) == len(column) - len(present):
            return numbers
    return column
