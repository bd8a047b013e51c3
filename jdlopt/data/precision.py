"""Numbers that float32 can't tell apart: a constant is taken off each, in float64, before the cast.

Unix times within a minute differ in their last digits alone, which float32 has not. What a model
is given is then the difference to one of the column's values. Scaling, filling in and clipping
are the same on it, but for the logarithm, which is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Num

from jdlopt.data.notes import Note, Notes

LOSS = 2.5e-6
"""A column whose values the cast to float32 moves by more standard deviations has a constant taken
off."""
TAKEN_OFF = "numbers that float32 can't tell apart have a constant taken off before the cast"
ROUNDED = "numbers so close together that float64 has rounded them"
TAKE_OFF = "Take off a constant before the data are written."

LARGEST_EXACT = 2.0**53
"""Up to here every whole number is a float64."""

Offset = int | float


def offset_of(
    values: Num[np.ndarray, " some"], exact: Sequence[int | None] | None = None
) -> Offset:
    """Returns what is to be taken off a column of numbers; 0 if float32 holds them well enough.

    Args:
      values: the training rows'; NaN where one is missing.
      exact: the whole numbers themselves, where a float64 rounds some.

    Example:
      >>> offset_of(np.array([1.7e9 + 1, 1.7e9 + 2, 1.7e9 + 3]))
      1700000002.0
      >>> offset_of(np.array([20.5, 21.5, 23.0]))
      0
    """
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return 0
    if exact is not None:
        whole = sorted(exact[index] or 0 for index in known.tolist())
        middle = whole[len(whole) // 2]
        return middle if whole[0] < whole[-1] else 0
    finite = np.asarray(values, np.float64)[known]
    with np.errstate(over="ignore"):
        moved = np.abs(finite.astype(np.float32) - finite).max()
    spread = float(np.std(finite - finite[0]))
    if not moved > LOSS * spread or finite.min() == finite.max() or not np.isfinite(moved):
        return 0
    return float(np.sort(finite)[len(finite) // 2])


def offsets_of(values: Num[np.ndarray, "rows columns"]) -> tuple[Offset, ...]:
    """Returns what is to be taken off each column of a matrix; empty if nothing is.

    Example:
      >>> offsets_of(np.array([[1.0, 1e12], [2.0, 1e12 + 1]]))
      (0, 1000000000001.0)
    """
    if values.ndim != 2 or values.dtype.kind not in "iuf" or values.dtype.itemsize < 4:
        return ()
    if values.dtype == np.float32 or not len(values):
        return ()
    whole = values.dtype.kind in "iu" and float(np.abs(values).max(initial=0)) > LARGEST_EXACT
    found = tuple(
        offset_of(column.astype(np.float64), column.tolist() if whole else None)
        for column in values.T
    )
    return found if any(found) else ()


def without(
    values: Num[np.ndarray, "rows columns"], offsets: Sequence[Offset]
) -> Float32[np.ndarray, "rows columns"]:
    """Returns a matrix as float32, after what is taken off each column.

    Example:
      >>> without(np.array([[1.0, 1e12], [2.0, 1e12 + 1]]), (0, 1e12)).tolist()
      [[1.0, 0.0], [2.0, 1.0]]
    """
    with np.errstate(over="ignore"):
        if not offsets:
            return values.astype(np.float32)
        columns = [less(column, offset) for column, offset in zip(values.T, offsets, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)


def less(values: Num[np.ndarray, " rows"], offset: Offset) -> np.ndarray:
    """Returns numbers less an offset, computed without rounding either of them first."""
    if not offset or values.dtype.kind == "f":
        return values.astype(np.float64) - float(offset)
    return np.array([int(value) - int(offset) for value in values.tolist()], np.float64)


def restored(values: np.ndarray, offsets: Sequence[Offset]) -> np.ndarray:
    """Returns inputs as the data have them, in float64: what was taken off is added again."""
    if not offsets:
        return values
    return values.astype(np.float64) + np.array([float(offset) for offset in offsets])


def notes_of(offsets: Sequence[Offset], names: Sequence[str]) -> tuple[Note, ...]:
    """Returns what there is to be said of what is taken off columns of these names."""
    notes = Notes()
    for name, offset in zip(names, offsets):
        if offset:
            notes.add("changed", TAKEN_OFF, f"{offset!r} off {name!r}", unit="columns")
    return tuple(notes)


def notes_of_matrix(
    values: Num[np.ndarray, "rows *shape"], offsets: Sequence[Offset], what: str
) -> tuple[Note, ...]:
    """Returns what there is to be said of an array of inputs: of its columns, or of all of it.

    Args:
      values: before the cast.
      offsets: what is taken off its columns.
      what: names it.
    """
    notes = Notes()
    notes.extend(notes_of(offsets, [f"{what}, column {place}" for place in range(len(offsets))]))
    if values.dtype.kind not in "iuf" or values.dtype.itemsize < 4 or values.dtype == np.float32:
        return tuple(notes)
    if values.ndim != 2:
        if offset_of(values.ravel()):
            notes.add("unused", "numbers that float32 can't tell apart", what, values.size,
                      remedy="Take off a constant in float64.")  # fmt: skip
        return tuple(notes)
    for place, column in enumerate(values.T):
        if values.dtype.kind == "f" and rounded(column):
            notes.add("changed", ROUNDED, f"{what}, column {place}", unit="columns",
                      remedy=TAKE_OFF)  # fmt: skip
    return tuple(notes)


def rounded(values: Num[np.ndarray, " some"]) -> bool:
    """Returns whether numbers lie so close together that float64 itself has rounded them.

    Example:
      >>> rounded(np.array([1e12, 1e12 + 1e-3])), rounded(np.array([1e12, 1e12 + 1e3]))
      (True, False)
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite) < 2:
        return False
    large = float(np.abs(finite).max())
    if large <= LARGEST_EXACT and bool((finite == np.floor(finite)).all()):
        return False  # whole numbers are held as they are
    return 2.0**-53 * large > LOSS * float(np.std(finite - finite[0]))
