"""What each column of a table looks like, as a feature and as a target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jdlopt.data import columns, mixed
from jdlopt.data.combined_labels import combined
from jdlopt.data.fields import DataFields
from jdlopt.data.targets import MAX_INFERRED_CLASSES

if TYPE_CHECKING:
    import pandas as pd

NUMBERS, CATEGORIES, TEXTS, IMAGES, SOUNDS = (
    "numbers",
    "categories",
    "texts",
    "paths of images",
    "paths of sounds",
)
DATES, ONE_VALUE, NOTHING, UNUSABLE = "dates", "one value", "nothing", "what can't be read"
APART = {"text": TEXTS, "image": IMAGES, "sound": SOUNDS}
LEAST_ROWS = 20
NEARLY_ALL = 0.9
"""Share of different texts from which on they name the rows."""
MOST_SHOWN = 40
LEAST_SIGNS = 8
"""Signs of a text, on average, in scripts that put no spaces between words."""
MOST_CLASSES = 200
"""Whole numbers with more different values are hardly classes."""
FEW_NUMBERS = 12
"""A column of at most so many different whole numbers may hold categories."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_IDENTIFIER = re.compile(
    r"(^|[^a-z])(id|ids|uuid|guid|key|index|idx|nr|no|row[ _]?(id|nr|no|num|number)?)$",
    re.IGNORECASE,
)
_CAMEL_IDENTIFIER = re.compile(r"[a-z](Id|ID)$")
_GROUP = re.compile(
    r"(^|[^a-z])(patient|subject|participant|person|user|customer|client|speaker|author|family|"
    r"household|group|session|site|hospital|device|machine|store|shop|account|student|school)"
    r"(s|[ _]?(id|nr|no|key|name|code))?$",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"(^|[^a-z])(zip|zip_?code|post_?code|code|type|kind|class|category|region|season|weekday|month)"
    r"([ _]?(id|nr|no|code))?$",
    re.IGNORECASE,
)


class Look(NamedTuple):
    """One column.

    Attributes:
      name: its name, which is the data's.
      holds: in a word or two, of those above.
      rows: of the table.
      different: how many different values it has.
      missing: how many rows lack one.
      words: more of it: a range, the most frequent categories, or why it can't be read.
      whole: whether it holds whole numbers alone.
      names_rows: whether it has another value in each row and no more to say.
      delimiter: what stands between several labels in one text, if it looks so.
    """

    name: str
    holds: str
    rows: int
    different: int
    missing: int
    words: str
    whole: bool = False
    names_rows: bool = False
    delimiter: str | None = None

    @property
    def may_group(self) -> bool:
        """Whether rows of one value may belong together, by the column's name."""
        several = 2 * self.different <= self.rows and self.different > 2
        return several and self.holds in (NUMBERS, CATEGORIES) and bool(_GROUP.search(self.name))

    @property
    def may_be_categories(self) -> bool:
        """Whether its numbers may mean categories: few different ones, or by its name."""
        if self.holds != NUMBERS or not self.whole or self.different < 3:
            return False
        few = self.different <= FEW_NUMBERS and self.rows >= LEAST_ROWS * self.different
        return few or bool(_CODE.search(self.name))


def shown(value: object) -> str:
    r"""Returns a value of the data for a comment or a message: short, and in quotes if a text.

    Example:
      >>> shown("a\nb"), shown(3.0)
      ("'a\\nb'", '3')
    """
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    if not isinstance(value, str):
        return str(value)
    return repr(value if len(value) <= MOST_SHOWN else value[: MOST_SHOWN - 1] + "…")


def look_at(table: pd.DataFrame, fields: DataFields, folder: Path) -> dict[str, Look]:
    """Returns what each column of a table looks like, by its name.

    Args:
      table: as it was read.
      fields: the data section: what it says of columns is not guessed.
      folder: where paths begin.
    """
    rows = np.arange(len(table))
    return {name: _look(table[name], rows, fields, folder) for name in table.columns}


def _look(column: pd.Series, rows: np.ndarray, fields: DataFields, folder: Path) -> Look:
    name, size = str(column.name), len(rows)
    missing = int(column.isna().sum())
    if missing == size:
        return Look(name, NOTHING, size, 0, missing, "is empty")
    present = column.dropna()
    kinds = mixed.kinds_of(column.to_frame(), [name], rows, fields, folder)
    given = {**dict.fromkeys(fields.categorical, "category"), **fields.columns}.get(name)
    apart = kinds.apart.get(name)
    read = columns.read_column(
        column, rows, None if given is None else given == "category", fields.decimal
    )
    unusable = [one.words for one in read.problems if one.kind == columns.UNUSABLE]
    if unusable and apart is None:
        holds = DATES if unusable[0].startswith("holds dates") else UNUSABLE
        such = f", such as {shown(str(present.iloc[0]))}" if holds == DATES else ""
        words = unusable[0].partition(";")[0] + such
        return Look(name, holds, size, _different(present), missing, words)
    if apart is not None:
        return Look(name, APART[apart], size, _different(present), missing, _first(present))
    if read.texts is None:
        return _of_numbers(name, read.numbers, missing)
    texts = [text for text in read.texts if text is not None]
    counts = Counter(texts)
    if len(counts) == 1:
        return Look(name, ONE_VALUE, size, 1, missing, f"always {shown(texts[0])}")
    names_rows = len(texts) >= LEAST_ROWS and len(counts) > NEARLY_ALL * len(texts)
    if names_rows and given is None and _is_unspaced(texts):
        return Look(name, TEXTS, size, len(counts), missing, _first(present))
    found = combined(counts, len(texts))
    often = ", ".join(f"{shown(text)} {count:,}" for text, count in counts.most_common(3))
    return Look(
        name,
        CATEGORIES,
        size,
        len(counts),
        missing,
        _first(present) if names_rows else often,
        names_rows=names_rows,
        delimiter=None if found is None else found.separator,
    )


def _different(values: pd.Series) -> int:
    return len(set(map(str, values)))


def _first(values: pd.Series) -> str:
    return f"such as {shown(str(values.iloc[0]))}"


def _is_unspaced(texts: Sequence[str]) -> bool:
    some = texts[:: -(-len(texts) // mixed.LOOKED_AT)]
    signs = sum(len(_UNSPACED.findall(text)) for text in some)
    return signs >= LEAST_SIGNS * len(some)


def _of_numbers(name: str, numbers: np.ndarray, missing: int) -> Look:
    size, known = len(numbers), numbers[np.isfinite(numbers)]
    different = np.unique(known)
    if len(different) <= 1:
        words = f"always {shown(different[0])}" if len(different) else "has no number"
        return Look(name, ONE_VALUE, size, len(different), missing, words)
    whole = bool((known == np.floor(known)).all())
    words = f"{shown(different[0])} to {shown(different[-1])}"
    unlike = len(different) == size >= LEAST_ROWS and whole
    counts_rows = unlike and bool((np.diff(numbers) == 1).all())
    names_rows = unlike and (counts_rows or is_identifier(name))
    return Look(name, NUMBERS, size, len(different), missing, words, whole, names_rows)


def is_identifier(name: str) -> bool:
    """Returns whether a column's name says that it names rows.

    Example:
      >>> [is_identifier(name) for name in ("id", "PassengerId", "order_no", "valid", "paid")]
      [True, True, True, False, False]
    """
    return bool(_IDENTIFIER.search(name) or _CAMEL_IDENTIFIER.search(name))


class AsTarget(NamedTuple):
    """What it would mean to predict a column.

    Attributes:
      task: of `jdlopt.tasks.TASKS`; None where it can't be predicted.
      words: why, and how much there is to predict.
      other: the task that might be meant instead; None for none.
    """

    task: str | None
    words: str
    other: str | None = None


def as_target(look: Look) -> AsTarget:
    """Returns which task a column would be the target of, and what else it might be."""
    if look.holds in (NOTHING, ONE_VALUE):
        return AsTarget(None, f"{look.words}: nothing to learn")
    if look.holds in (DATES, UNUSABLE):
        return AsTarget(None, look.words)
    if look.holds in APART.values():
        free = "free text" if look.holds == TEXTS else look.holds
        return AsTarget(None, f"holds {free}, which is an input")
    if look.holds == CATEGORIES:
        if look.delimiter is not None:
            words = f"texts with {look.delimiter!r} between several labels"
            return AsTarget("multilabel", words, "classification")
        if look.names_rows or 2 * look.different > look.rows:
            return AsTarget(None, f"has {look.different:,} different values in {look.rows:,} rows")
        return AsTarget("classification", f"{look.different:,} classes")
    if look.names_rows:
        return AsTarget("regression", "names the rows: another value in each, which nothing tells")
    if look.whole and look.different <= MAX_INFERRED_CLASSES:
        words = f"whole numbers with {look.different} different values, {look.words}"
        return AsTarget("classification", words, "regression" if look.different > 2 else None)
    what = "whole numbers" if look.whole else "numbers"
    words = f"{what} with {look.different:,} different values, {look.words}"
    recur = look.different <= MAX_INFERRED_CLASSES or (
        look.whole and 5 * look.different <= look.rows
    )
    may_be_classes = recur and look.different <= MOST_CLASSES
    return AsTarget("regression", words, "classification" if may_be_classes else None)


def rows_of(looks: Mapping[str, Look]) -> list[dict[str, str | int]]:
    """Returns a row for each column, for a table that people read, or JSON."""
    made: list[dict[str, str | int]] = []
    for look in looks.values():
        target = as_target(look)
        made.append(
            {
                "column": look.name,
                "holds": look.holds,
                "different": look.different,
                "missing": look.missing,
                "as the target": target.task or "–",
                "what there is": target.words,
            }
        )
    return made
