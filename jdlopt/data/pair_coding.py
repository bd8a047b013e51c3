"""How the targets of pairs are coded: equal values, of whatever kind, are one number."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from jdlopt.data.coding import Coder, Coding
from jdlopt.data.fields import DataFields
from jdlopt.data.notation import stripped
from jdlopt.data.notes import Note
from jdlopt.errors import DataError

TASK = "pairs"


def _number(value: object) -> int:
    """Returns 31 bits of a value's text, the same in every process."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.decode() if isinstance(value, bytes) else str(value)
    return zlib.crc32(stripped(text).encode()) >> 1


def infer(values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None) -> Coding:
    """Returns the coding: there are no classes, since new examples bring values of their own.

    Raises:
      DataError: the targets are no values, one is missing, or all are equal.
    """
    encoded = encode(values, Coding(TASK), what)
    found = len(np.unique(encoded))
    if found == 1:
        raise DataError(
            f"{what}: all {len(encoded)} examples belong together ({values.tolist()[0]!r}), so "
            "there is nothing to tell them apart by. Is it the right target?"
        )
    shared = len(encoded) - found
    notes = (
        Note(
            "guessed",
            f"{what}: examples of equal values belong together, and none is wrong for another",
            shared,
            "examples",
        ),
    )
    return Coding(TASK, notes=notes if shared else ())


def encode(values: np.ndarray, coding: Coding, what: str) -> Int32[np.ndarray, "n"]:
    """Returns a number for each example's value, the same for equal ones.

    Of two different values, one in 2³¹ pairs has the same: then their examples are no negatives of
    each other.

    Raises:
      DataError: there are several targets an example, or one is missing.
    """
    if values.ndim != 1:
        raise DataError(
            f"{what}: found targets of shape {values.shape}; of pairs the target is one value an "
            "example, equal where examples belong together."
        )
    given = values.tolist()
    missing = [row for row, value in enumerate(given) if value is None or value != value]
    if missing:
        raise DataError(
            f"{what}: has {len(missing)} missing values, the first in row {missing[0] + 1}. "
            "Remove these rows or fill the target in."
        )
    return np.array([_number(value) for value in given], np.int32)


def with_target(fields: DataFields, where: str) -> DataFields:
    """Returns a data section whose target, of pairs, is their text where it names none.

    Raises:
      DataError: there is no text, or several.
    """
    if fields.task != TASK or fields.target is not None:
        return fields
    texts = [name for name, kind in fields.columns.items() if kind == "text"]
    if len(texts) != 1:
        raise DataError(
            f"{where}: data.target is not set; of pairs it names the column whose equal values "
            "belong together, such as the captions. By default it is the only text in "
            f"data.columns, which has {len(texts)}."
        )
    return dataclasses.replace(fields, target=texts[0])


CODER = Coder(infer, encode)
