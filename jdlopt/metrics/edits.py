"""Edit distances: the fewest insertions, deletions and substitutions between two sequences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

CHUNK = 512
"""Pairs that are looked at together."""
KEPT, REPLACED, LEFT_OUT, ADDED = "kept", "replaced", "left out", "added"


class Edit(NamedTuple):
    """What becomes of an item.

    Attributes:
      kind: `KEPT`, `REPLACED`, `LEFT_OUT` (a deletion) or `ADDED` (an insertion).
      true: the item of the reference; None where one is added.
      said: that of the hypothesis; None where one is left out.
    """

    kind: str
    true: Hashable | None
    said: Hashable | None


def distances(
    true: Sequence[Sequence[Hashable]], said: Sequence[Sequence[Hashable]]
) -> Int[np.ndarray, " pairs"]:
    """Returns the edit distance of each pair of sequences, exactly.

    Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals", 1966; by
    rows of the table of Wagner and Fischer (1974), of many pairs at once.

    Args:
      true: the references.
      said: the hypotheses, one each.

    Example:
      >>> distances(["kitten", "", ["a", "b"]], ["sitting", "ab", ["b"]]).tolist()
      [3, 2, 1]
    """
    number: dict[Hashable, int] = {}
    coded = [
        [[number.setdefault(item, len(number)) for item in one] for one in some]
        for some in (true, said)
    ]
    found = [
        _distances(coded[0][start : start + CHUNK], coded[1][start : start + CHUNK])
        for start in range(0, len(true), CHUNK)
    ]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _distances(true: list[list[int]], said: list[list[int]]) -> Int[np.ndarray, " pairs"]:
    (rows, lengths), (columns, ends) = _padded(true, -1), _padded(said, -2)
    places = np.arange(columns.shape[1] + 1)
    # a row of the table: from so many items of the reference to each start of the hypothesis
    row = np.broadcast_to(places, (len(true), len(places)))
    found = ends.copy()
    for place in range(rows.shape[1]):
        replaced = row[:, :-1] + (rows[:, place, None] != columns)
        first = np.full((len(true), 1), place + 1)
        best = np.concatenate([first, np.minimum(replaced, row[:, 1:] + 1)], axis=1)
        row = np.minimum.accumulate(best - places, axis=1) + places
        done = np.flatnonzero(lengths == place + 1)
        found[done] = row[done, ends[done]]
    return found


def _padded(rows: list[list[int]], fill: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows], np.int64)
    made = np.full((len(rows), int(lengths.max(initial=0))), fill, np.int64)
    for place, row in zip(made, rows, strict=True):
        place[: len(row)] = row
    return made, lengths


def alignment(true: Sequence[Hashable], said: Sequence[Hashable]) -> list[Edit]:
    """Returns how one sequence becomes another in the fewest edits; of equals, what is kept first.

    Example:
      >>> [edit.kind for edit in alignment("abc", "xbcd")]
      ['replaced', 'kept', 'kept', 'added']
    """
    table = np.zeros((len(true) + 1, len(said) + 1), np.int64)
    table[:, 0], table[0] = np.arange(len(true) + 1), np.arange(len(said) + 1)
    for row, item in enumerate(true, start=1):
        for column, other in enumerate(said, start=1):
            table[row, column] = min(
                table[row - 1, column - 1] + (item != other),
                table[row - 1, column] + 1,
                table[row, column - 1] + 1,
            )
    made: list[Edit] = []
    row, column = len(true), len(said)
    while row or column:
        both = row > 0 and column > 0
        same = both and true[row - 1] == said[column - 1]
        if both and table[row, column] == table[row - 1, column - 1] + (not same):
            made.append(Edit(KEPT if same else REPLACED, true[row - 1], said[column - 1]))
            row, column = row - 1, column - 1
        elif row and table[row, column] == table[row - 1, column] + 1:
            made.append(Edit(LEFT_OUT, true[row - 1], None))
            row -= 1
        else:
            made.append(Edit(ADDED, None, said[column - 1]))
            column -= 1
    return made[::-1]
