"""A table as it is read for a first look: which words of it are values, and which are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jdlopt.data.csv_text import endings
from jdlopt.data.damage import Skipped
from jdlopt.data.missing_words import AMBIGUOUS, MISSING_WORDS, are_words, without_words
from jdlopt.data.notation import stripped
from jdlopt.data.notes import Notes
from jdlopt.data.table_files import CSV, read_table, split_tables
from jdlopt.data.walk import check_file
from jdlopt.errors import DataError
from jdlopt.starter.facts import Choice
from jdlopt.starter.found import grouped
from jdlopt.starter.looks import shown

if TYPE_CHECKING:
    import pandas as pd

LEAST_WORDS = 2
"""A word that occurs so often in a target may be a class."""


class Table(NamedTuple):
    """A table as it was read.

    Attributes:
      frame: its columns.
      damaged: whether rows were left out, which have too many values.
      own_splits: the splits beside that for training which have tables of their own.
      kept: the words for missing values that are classes of the target, and how often they are.
      words: those that stand for missing values, by column, and how often.
    """

    frame: pd.DataFrame
    damaged: bool = False
    own_splits: tuple[str, ...] = ()
    kept: Mapping[str, int] = {}
    words: Mapping[str, Mapping[str, int]] = {}


def read(path: Path, targets: Sequence[str] = ()) -> Table:
    """Returns a table, or that for training of a folder that has one for each split.

    Which words of a CSV stand for missing values, `jdlopt.data.missing_words` says; but those that
    recur in a target of classes, such as ``None``, are one of these.

    Args:
      path: a table, or a folder of them.
      targets: the columns to predict; several may be in one text, with commas.

    Raises:
      DataError: it can't be read.
    """
    own = tuple(split_tables(path)) if path.is_dir() else ()
    if not path.is_dir():
        check_file(path, "data.source")
    own, damaged = tuple(split for split in own if split != "train"), False
    try:
        frame = read_table(path, missing_values=())
    except DataError:
        frame, damaged = read_table(path, Skipped(), missing_values=()), True  # or raises
    if path.is_dir() or endings(path)[0] not in CSV:
        return Table(frame, damaged, own)
    kept: Counter[str] = Counter()
    named = (*targets, *(part.strip() for name in targets for part in name.split(",")))
    for name in dict.fromkeys(named):
        kept += _classes(frame[name]) if name in frame.columns else Counter()
    filled = without_words(frame, None, (), None, Notes(), strict=named)
    words = {
        name: {word: count for word, count in found.items() if word not in kept}
        for name in frame.columns
        if (found := _gone(frame[name], filled[name]))
    }
    words = {name: found for name, found in words.items() if found}
    if kept:
        rest = tuple({word: 0 for found in words.values() for word in found})
        filled = without_words(frame, rest, (), None, Notes())
    return Table(filled, damaged, own, dict(kept), words)


def _classes(column: pd.Series) -> Counter[str]:
    """Returns the words of a target that may stand for a missing value, and recur as a class."""
    values = [stripped(one) if isinstance(one, str) else one for one in column.dropna()]
    found = Counter(one for one in values if isinstance(one, str) and one in AMBIGUOUS)
    others = [one for one in values if one not in MISSING_WORDS]
    if not others or not are_words(others):
        return Counter()
    return Counter({word: count for word, count in found.items() if count >= LEAST_WORDS})


def _gone(before: pd.Series, after: pd.Series) -> dict[str, int]:
    """Returns the texts of a column that became missing, and how often."""
    gone = before[before.notna() & after.isna()]
    return dict(Counter(stripped(str(one)) for one in gone).most_common())


def of_words(found: Table) -> tuple[tuple[str, ...] | None, list[Choice]]:
    """Returns ``data.missing_values``, and what is said of words that may be values."""
    told = {
        name: ", ".join(f"{shown(word)} {count:,} times" for word, count in of_it.items())
        for name, of_it in found.words.items()
    }
    if found.kept:
        words = tuple(dict.fromkeys(word for of_it in found.words.values() for word in of_it))
        kept = ", ".join(f"{shown(word)} ({count:,} times)" for word, count in found.kept.items())
        why = f"no word stands for a missing value: {kept} is a class of the target"
        if words:
            lines = "\n".join(f"  {one}" for one in grouped(told))
            why = (
                f"The words that stand for missing values, which {kept}, a class of the target, "
                f"does not:\n{lines}"
            )
        return words, [Choice("data.missing_values", words, why)]
    if not told:
        return None, []
    lines = "\n".join(f"  {one}" for one in grouped(told))
    why = f"Words that are taken for missing values:\n{lines}\nIf they are values of their own:"
    return None, [Choice("data.missing_values", (), why, on=False)]
