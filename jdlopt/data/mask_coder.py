"""Masks: the class of each pixel, read from arrays of class numbers, and what can't be one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32, Num

from jdlopt.data.coding import PAD, Coder, Coding
from jdlopt.data.notes import Note
from jdlopt.errors import DataError

VOID = 255
"""The value in a mask, beside `PAD`, of a pixel whose class is not known: it counts for nothing."""
MOST = 1 << 16
"""A mask holds no class number as large as this."""
LISTED = 20
"""So many classes are listed in a message."""
TASK = "segmentation"


def infer(values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None) -> Coding:
    """Returns the coding of masks in an array: as many classes as the largest number in it says.

    Args:
      values: masks [examples, height, width], or with a last axis of one channel.
      what: names them in messages.
      names: the classes', in the order of their numbers; empty: the numbers themselves.
      delimiter: not used.

    Raises:
      DataError: they are no masks, or hold one class only.
    """
    masks = _numbers(values, what)
    return make_coding(occurring(masks), names, masks.shape[1:], what)


def make_coding(
    present: Int[np.ndarray, " classes"],
    names: Sequence[str],
    shape: tuple[int, ...],
    what: str,
) -> Coding:
    """Returns the coding of masks whose class numbers are known.

    Args:
      present: the class numbers that occur, ascending.
      names: as in `infer`.
      shape: (height, width) of a mask.
      what: names the masks in messages.

    Raises:
      DataError: there is one class only, most numbers up to the largest are in no mask, or a number
        has no name.
    """
    if names:
        beyond = present[present >= len(names)]
        if beyond.size:
            raise DataError(f"{what}: holds {no_class(int(beyond[0]), names)}")
    elif len(present) < 2:
        found = f"class {present[0]} only" if len(present) else "void pixels only"
        raise DataError(
            f"{what}: holds {found} (beside {VOID} and {PAD}, which are void: not known). Classes "
            "are numbered from 0: write a mask of two as 0 and 1."
        )
    count = len(names) or int(present[-1]) + 1
    absent = np.setdiff1d(np.arange(count), present)
    if len(absent) > len(present) and not names:
        raise DataError(
            f"{what}: holds the class numbers {_in_order(present.tolist())}, and none of the "
            f"{len(absent)} others below {count}. Number the classes from 0 without gaps, or name "
            "all of them (classes.txt of a folder, 'class_names' of an NPZ)."
        )
    notes: tuple[Note, ...] = ()
    if absent.size:
        told = tuple(str(names[place] if names else place) for place in absent[:10].tolist())
        notes = (
            Note("guessed", f"{what}: classes that no pixel has", len(absent), "classes", told),
        )
    return Coding(
        TASK,
        tuple(range(count)),
        tuple(names),
        shape=tuple(shape),
        positions=2,
        notes=notes,
    )


def encode(values: np.ndarray, coding: Coding, what: str) -> Int32[np.ndarray, "n height width"]:
    """Returns the class of each pixel, `PAD` where it is void.

    Raises:
      DataError: they are no masks of this shape, or hold a number that no class has.
    """
    masks = _numbers(values, what)
    if masks.shape[1:] != coding.shape:
        raise DataError(
            f"{what}: are masks of {sides(masks.shape[1:])} pixels where those of training are "
            f"{sides(coding.shape)}."
        )
    bad = masks >= len(coding.classes)
    if bad.any():
        first = int(np.argmax(bad.reshape(len(masks), -1).any(axis=1)))
        raise DataError(f"{what}: the mask of example {first} holds {_first(masks[first], coding)}")
    return masks


def encode_one(values: np.ndarray, coding: Coding) -> Int32[np.ndarray, "height width"]:
    """Returns the class of each pixel of one mask, `PAD` where it is void.

    Raises:
      DataError: it holds a number that no class has; the message has no file's name yet.
    """
    mask = _known(values)
    if (mask >= len(coding.classes)).any():
        raise DataError(f"holds {_first(mask, coding)}")
    return mask


def occurring(masks: Int32[np.ndarray, "*shape"]) -> Int[np.ndarray, " classes"]:
    """Returns the class numbers that occur in encoded masks, ascending."""
    return np.flatnonzero(np.bincount(masks[masks >= 0].ravel(), minlength=1))


def no_class(value: int, names: Sequence[str], where: str = "") -> str:
    """Says that a mask's value is no class."""
    return (
        f"{value}{where}, which no class has: they are numbered from 0 to {len(names) - 1} "
        f"({_in_order(names)}); {VOID} and {PAD} are void."
    )


def _in_order(values: Sequence[object]) -> str:
    """Returns the first values in one line."""
    shown = ", ".join(map(str, values[:LISTED]))
    return f"{shown} …" if len(values) > LISTED else shown


def sides(shape: Sequence[int]) -> str:
    """Returns (height, width) in words."""
    return " x ".join(map(str, shape))


def _first(mask: Int32[np.ndarray, "height width"], coding: Coding) -> str:
    """Says where a mask holds the first number that no class has."""
    row, column = np.argwhere(mask >= len(coding.classes))[0].tolist()
    value = int(mask[row, column])
    return no_class(value, coding.class_names, f" at row {row + 1}, column {column + 1}")


def _known(values: Num[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """Returns class numbers as int32, void ones as `PAD`."""
    known: np.ndarray = values.astype(np.int32)
    known[known == VOID] = PAD
    return known


def _numbers(values: np.ndarray, what: str) -> Int32[np.ndarray, "n height width"]:
    """Returns masks of an array, void pixels as `PAD`.

    Raises:
      DataError: it is of another rank, or holds anything but class numbers.
    """
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise DataError(
            f"{what}: have shape {values.shape}; masks are [examples, height, width], a class "
            "number for each pixel. Colours are no classes: give their numbers."
        )
    if values.dtype.kind not in "biuf":
        raise DataError(f"{what}: holds {values.dtype}; masks are of class numbers.")
    good: Bool[np.ndarray, "n height width"] = (values >= PAD) & (values < MOST)
    if values.dtype.kind == "f":
        good &= values == np.floor(values)
    if not good.all():
        example, row, column = np.argwhere(~good)[0].tolist()
        raise DataError(
            f"{what}: the mask of example {example} holds {values[example, row, column]} at row "
            f"{row + 1}, column {column + 1}; expected whole numbers from 0 on, or {VOID} and "
            f"{PAD}, which are void."
        )
    return _known(values)


SEGMENTATION_CODER = Coder(infer, encode)
