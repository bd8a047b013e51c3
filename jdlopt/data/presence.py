"""Examples that lack some of their inputs: which do, and what stands in the place of the missing.

With ``data.missing_inputs='mask'``, a row of a mixed table may lack its text, its image or sound,
or all its numbers and categories. What is missing is zeros, and `jdlopt.data.named.PRESENT` says
of each example which inputs are there, for a model to mask the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from jdlopt.data.columns import as_texts
from jdlopt.data.damage import Skipped, check_left
from jdlopt.data.named import PRESENT, TABLE
from jdlopt.data.notes import Note
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd

There = Mapping[str, Bool[np.ndarray, " rows"]]
"""Of each input, the rows that have it."""
Parts = Mapping[str, tuple[str, np.ndarray | None]]


@dataclass(frozen=True)
class MaskedPool:
    """The examples of a pool, zeros in the place of those that it lacks; these are never read.

    Attributes:
      pool: the examples.
      there: which of them it has.
      shape, dtype: of one example's input.
    """

    pool: Pool
    there: Bool[np.ndarray, " examples"]
    shape: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        inputs, targets = self.read(np.array([index]))
        return inputs[0], targets[0]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices)
        inputs = np.zeros((len(chosen), *self.shape), self.dtype)
        some = self.there[chosen]
        if some.any():
            inputs[some] = self.pool.read(chosen[some]).inputs
        return Arrays(inputs, self.pool.targets(chosen))

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets of the examples at the indices, or of all."""
        return self.pool.targets(indices)


def there_in(table: pd.DataFrame, columns: Mapping[str, Sequence[str]]) -> There:
    """Returns which rows have each input: those with a value in any of its columns.

    Args:
      table: the columns.
      columns: of each input.
    """
    return {
        name: np.any([[text is not None for text in as_texts(table[one])] for one in some], axis=0)
        for name, some in columns.items()
    }


def as_input(there: There) -> tuple[InputSpec, Bool[np.ndarray, "rows inputs"]]:
    """Returns what is known of the input `PRESENT`, and itself."""
    return InputSpec((len(there),), "bool"), np.stack(list(there.values()), axis=1)


def check(
    there: There, parts: Parts, index: pd.Index, where: str, skipped: Skipped, skip: bool
) -> Parts:
    """Returns the splits without the rows that lack every input.

    Args:
      there: which rows have each input.
      parts: the splits.
      index: counts the file's rows.
      where: names the file, for messages.
      skipped: where rows that are left out are counted.
      skip: whether they are left out.

    Raises:
      DataError: there is such a row, and it is not left out; there is one input alone; or one of
        the inputs has the name of the one that says which there are.
    """
    if PRESENT in there:
        raise DataError(
            f"{where}: the column {PRESENT!r} would be an input of the name that says which inputs "
            "an example has (data.missing_inputs='mask'). Rename it."
        )
    if len(there) == 1:
        raise DataError(
            f"data.missing_inputs: {where} has one input alone ({listing(there)}); an example "
            "without it has nothing to be predicted from. Leave the key out; data.on_bad='skip' "
            "leaves such rows out."
        )
    nothing = ~np.any(list(there.values()), axis=0)
    if not nothing.any():
        return parts
    if not skip:
        first = int(np.argmax(nothing))
        raise DataError(
            f"{where}: {int(nothing.sum())} rows have none of the inputs {listing(there)}, the "
            f"first is row {index[first]}. Correct these rows, or leave them out with "
            "data.on_bad='skip'."
        )
    made = {}
    for split, (pool, rows) in parts.items():
        every = np.arange(len(nothing)) if rows is None else rows
        for row in every[nothing[every]]:
            skipped.add("no input", f"{where}, row {index[row]}")
        made[split] = (pool, every[~nothing[every]])
        check_left(made[split][1], split, where, skipped)
    return made


def notes_of(there: There) -> tuple[Note, ...]:
    """Returns a note of each input that some rows lack."""
    return tuple(
        Note(
            "changed",
            f"{'numbers and categories' if name == TABLE else repr(name)} that are missing are "
            "masked",
            int((~rows).sum()),
            "examples",
            (),
            "data.missing_inputs='refuse' refuses them.",
        )
        for name, rows in there.items()
        if not rows.all()
    )
