"""Targets: is it classification or regression, which classes are there, and their numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdlopt.errors import DataError, listing

MAX_INFERRED_CLASSES = 20
"""A column of whole numbers with more distinct values than this is taken for regression."""


class Coding(NamedTuple):
    """How raw targets become numbers: the classes in order, or none for regression."""

    task: str
    classes: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each class, in the order of the numbers."""
        return self.names or tuple(_class_name(value) for value in self.classes)


def _class_name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def infer_coding(values: np.ndarray, task: str, what: str) -> Coding:
    """Returns how to code targets, with the task inferred where it is ``auto``.

    Text and booleans are classes. Whole numbers are classes if there are at most 20 distinct ones;
    all other numbers are values to predict.

    Args:
      values: raw targets [examples]: numbers, booleans or text.
      task: ``auto``, ``classification`` or ``regression``.
      what: names the targets, for messages.

    Raises:
      DataError: no targets, missing ones, one value only, or text to be predicted as a number.

    Example:
      >>> infer_coding(np.array(["no", "yes", "no"]), "auto", "target").classes
      ('no', 'yes')
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"{what}: found targets of shape {values.shape}, expected one target an example "
            "(for one-hot classes, store their argmax)."
        )
    if values.size == 0:
        raise DataError(f"{what}: is empty, there are no examples.")
    check_present(values, what)
    if values.dtype.kind not in "biufSUOM":
        raise DataError(f"{what}: holds {values.dtype}; expected classes or real numbers.")
    is_number = values.dtype.kind in "iuf"
    if values.dtype.kind == "f" and np.isinf(values).any():
        first = int(np.argmax(np.isinf(values)))
        raise DataError(f"{what}: row {first + 1} holds {values[first]}: expected a finite number.")
    distinct = sorted(set(values.tolist()), key=lambda value: (str(type(value)), value))
    if task == "auto":
        whole = is_number and bool((values == np.floor(values)).all())
        few = len(distinct) <= MAX_INFERRED_CLASSES
        task = "classification" if not is_number or (whole and few) else "regression"
    if len(distinct) < 2:
        kind = "class" if task == "classification" else "value"
        raise DataError(
            f"{what}: has one {kind} only ({distinct[0]!r} in all {values.size} examples); "
            "there is nothing to learn. Is it the right target?"
        )
    if task == "regression":
        as_float32(values, what)
        return Coding("regression")
    return Coding("classification", tuple(distinct))


def encode(values: np.ndarray, coding: Coding, what: str) -> np.ndarray:
    """Returns targets as int32 classes or float32 values.

    Raises:
      DataError: a class that the coding does not know, or something that is not a number.
    """
    values = np.asarray(values).reshape(-1)
    check_present(values, what)
    if coding.task == "regression":
        return as_float32(values, what)
    number = {value: index for index, value in enumerate(coding.classes)}
    codes = np.array([number.get(value, -1) for value in values.tolist()], dtype=np.int32)
    if (codes < 0).any():
        first = int(np.argmax(codes < 0))
        raise DataError(
            f"{what}: row {first + 1} has class {values.tolist()[first]!r}, which no training "
            f"example has. Known: {listing(coding.class_names)}."
        )
    return codes


def check_present(values: np.ndarray, what: str) -> None:
    """Raises a `DataError` that names the first row whose target is missing, if one is."""
    if values.dtype.kind == "f":
        missing = np.isnan(values)
    elif values.dtype.kind == "O":
        missing = np.array([value is None or value != value for value in values], dtype=bool)
    else:
        return
    if missing.any():
        raise DataError(
            f"{what}: has {int(missing.sum())} missing values (NaN), the first in row "
            f"{int(np.argmax(missing)) + 1}. Remove these rows or fill the target in."
        )


def as_float32(values: np.ndarray, what: str) -> np.ndarray:
    """Returns numbers as finite float32, or raises a `DataError` that names the first other."""
    if values.dtype.kind not in "biuf":
        for row, value in enumerate(values.tolist(), start=1):
            try:
                float(value)
            except (TypeError, ValueError):
                raise DataError(
                    f"{what}: row {row} holds {value!r}, which is not a number. Correct it, or set "
                    "data.task='classification' if these are classes."
                ) from None
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        first = int(np.argmin(np.isfinite(numbers)))
        raise DataError(
            f"{what}: row {first + 1} holds {values[first]!r}: expected a finite number."
        )
    return numbers
