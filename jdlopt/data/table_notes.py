"""What is to be said of a table's columns: what they were taken for, and what is new in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from jdlopt.config.tree import nested_columns
from jdlopt.data import precision
from jdlopt.data.columns import SECONDS, UNSEEN, Column, note_unseen, shown
from jdlopt.data.notation import alike
from jdlopt.data.notes import Notes
from jdlopt.data.precision import Offset

if TYPE_CHECKING:
    import pandas as pd

LEAST_ROWS = 20
MANY = 0.5
"""A column of categories with more different values than this share of its rows says little."""


def of_columns(
    notes: Notes,
    table: pd.DataFrame,
    read: Mapping[str, Column],
    declared: Mapping[str, bool],
    rows: Int[np.ndarray, " some"],
    offsets: Sequence[Offset],
) -> None:
    """Notes what columns were read as, where they could be something else.

    Args:
      notes: takes them.
      table: the columns as they are.
      read: as they were read.
      declared: the columns of which the config says what they hold.
      rows: the training rows.
      offsets: what is taken off each column.
    """
    for name, column in read.items():
        if column.notation is not None:
            first = int(np.argmax(np.isfinite(column.numbers)))
            such = "" if column.notation == SECONDS else f", such as {shown(table[name], first)}"
            notes.add(
                "changed",
                f"columns hold {column.notation.words}",
                f"column {name!r}{such}",
                int(np.isfinite(column.numbers).sum()),
                remedy=f"data.columns={nested_columns({name: 'category'})} takes them as they "
                "stand.",
            )
        if column.texts is None:
            if precision.rounded(column.numbers[rows]) and column.exact is None:
                notes.add(
                    "changed", precision.ROUNDED, f"column {name!r}", unit="columns",
                    remedy=precision.TAKE_OFF,
                )  # fmt: skip
            continue
        present = [text for text in column.texts[rows] if text is not None]
        different = len(set(present))
        if name not in declared and len(present) >= LEAST_ROWS and different > MANY * len(present):
            notes.add(
                "guessed",
                "text is taken for categories, though most of its values are different",
                f"column {name!r}: {different:,} values in {len(present):,} rows",
                unit="columns",
                remedy=f"data.columns={nested_columns({name: 'text'})} takes it as text, "
                "data.ignore leaves it out.",
            )
    notes.extend(precision.notes_of(offsets, list(read)))


OF_ANOTHER_RUN = "categories that the run whose coding is kept did not have"
"""A training row's, whose categories are not taken from the training rows."""


def of_categories(
    notes: Notes,
    read: Mapping[str, Column],
    categories: Mapping[str, Sequence[str]],
    parts: Mapping[str, tuple[str, np.ndarray | None]],
) -> None:
    """Notes categories that look alike, and those that only validation or test rows have."""
    for name, known in categories.items():
        texts = read[name].texts
        assert texts is not None
        for group in alike(known):
            notes.add(
                "guessed",
                "categories that differ only in case, spaces or unseen signs are different ones",
                f"column {name!r}: {', '.join(map(repr, group))}",
                len(group),
                "categories",
                "Correct them in the file.",
            )
        for split in ("train", "validation", "test"):
            rows = parts[split][1]
            if rows is not None:
                what = OF_ANOTHER_RUN if split == "train" else UNSEEN
                note_unseen(notes, name, texts[rows], known, f" in {split}", what)
