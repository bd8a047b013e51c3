"""How the targets of each bundled task are coded, and what can't be a target."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from jdlopt.data import next_tokens, tags, target_texts
from jdlopt.data.coding import Coder, Coding
from jdlopt.data.mask_coder import SEGMENTATION_CODER, TASK
from jdlopt.data.notation import alike, stripped
from jdlopt.data.notes import Note, Notes
from jdlopt.data.pair_coding import CODER as OF_PAIRS
from jdlopt.data.transcript_coding import TASK as TRANSCRIPTION
from jdlopt.data.transcript_coding import encode_transcripts, infer_transcripts
from jdlopt.errors import DataError, listing

# --- one of several classes -----------------------------------------------------------------------


def _infer_classes(
    values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None
) -> Coding:
    """Returns the coding of classes: the values that occur, or the columns of one-hot rows."""
    check_present(values, what, names)
    if values.dtype.kind == "f" and np.isinf(values).any():
        first = int(np.argmax(np.isinf(values).reshape(len(values), -1).any(axis=1)))
        raise DataError(f"{what}: row {first + 1} holds {values[first]}: expected finite numbers.")
    if values.ndim == 1:
        given = values.tolist()
        found = [_class_of(value) for value in given]
        distinct = sorted(set(found), key=lambda value: (str(type(value)), value))
        if len(distinct) < 2:
            raise _one_only(what, "class", distinct[0], values.size)
        return Coding("classification", tuple(distinct), notes=_class_notes(given, found, what))
    _one_hot_classes(values, what)
    columns = values.shape[1]
    return Coding("classification", tuple(range(columns)), tuple(names))


def _encode_classes(values: np.ndarray, coding: Coding, what: str) -> Int32[np.ndarray, "n"]:
    """Returns the number of each example's class."""
    if values.ndim == 2 and values.shape[1] > 1:
        return _one_hot_classes(values, what)
    values = values.reshape(-1)
    check_present(values, what)
    number = {value: index for index, value in enumerate(coding.classes)}
    codes = np.array([number.get(_class_of(value), -1) for value in values.tolist()], np.int32)
    if (codes < 0).any():
        first = int(np.argmax(codes < 0))
        raise DataError(
            f"{what}: row {first + 1} has class {values.tolist()[first]!r}, which no training "
            f"example has. Known: {listing(coding.class_names)}."
        )
    return codes


def _class_of(value: Any) -> Any:
    """Returns the class that a raw target means: a text without spaces around it."""
    return stripped(value) if isinstance(value, str) else value


def _class_notes(given: Sequence[Any], found: Sequence[Any], what: str) -> tuple[Note, ...]:
    """Returns what there is to be said of classes: spaces that were taken off, names alike."""
    notes = Notes()
    counts = collections.Counter(found)
    for old, new in zip(given, found, strict=True):
        if isinstance(old, str) and old != new:
            notes.add("changed", f"{what}: spaces around classes are taken off", unit="targets")
    for group in alike([name for name in counts if isinstance(name, str)]):
        notes.add(
            "guessed",
            f"{what}: classes that differ only in case, spaces or unseen signs are different ones",
            ", ".join(f"{name!r} {counts[name]:,} times" for name in group),
            len(group),
            "classes",
            "Correct them in the source.",
        )
    return tuple(notes)


def _one_hot_classes(values: np.ndarray, what: str) -> Int32[np.ndarray, "n"]:
    """Returns the place of the 1 in each row."""
    bad = np.ones(len(values), bool)
    if are_bits(values):
        bad = values.astype(np.int64).sum(axis=1) != 1
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{what}: row {first + 1} holds {values[first].tolist()}; a classification takes one "
            "class an example, or a row with one 1 at the place of its class. For any number of "
            "labels an example set data.task='multilabel', for several numbers 'regression'."
        )
    return values.argmax(axis=1).astype(np.int32)


def _one_only(what: str, kind: str, value: object, size: int) -> DataError:
    return DataError(
        f"{what}: has one {kind} only ({value!r} in all {size} examples); "
        "there is nothing to learn. Is it the right target?"
    )


# --- any number of labels -------------------------------------------------------------------------


def _infer_labels(
    values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None
) -> Coding:
    """Returns the coding of labels: a column each, or texts with a delimiter between them."""
    if values.ndim == 2:
        bits = _bits(values, what, names)
        if bool((bits == bits[0]).all()):
            raise _one_only(what, "set of labels", bits[0].tolist(), len(bits))
        labels = tuple(names) or tuple(str(column) for column in range(values.shape[1]))
        return Coding("multilabel", labels, shape=(len(labels),))
    if delimiter is None:
        raise DataError(
            f"{what}: holds one value an example; for several labels name a column of 0 and 1 for "
            "each, data.target=('A', 'B'), or what stands between them in a text, "
            "data.label_delimiter='|'."
        )
    found = [labels_of(value, delimiter) for value in values.tolist()]
    labels = tuple(sorted({label for row in found for label in row}))
    if not labels:
        raise DataError(f"{what}: no example has a label; there is nothing to learn.")
    if all(set(row) == set(found[0]) for row in found):
        raise _one_only(what, "set of labels", values.tolist()[0], len(found))
    if len(labels) == 1:
        raise DataError(
            f"{what}: holds one label only, {labels[0]!r}; is {delimiter!r} what stands between "
            "labels (data.label_delimiter)? For one label that is there or not, make it a class."
        )
    return Coding("multilabel", labels, delimiter=delimiter, shape=(len(labels),))


def _encode_labels(values: np.ndarray, coding: Coding, what: str) -> Int32[np.ndarray, "n labels"]:
    """Returns a row of 0 and 1 an example, a column a label."""
    if values.ndim == 2:
        if values.shape[1] != len(coding.classes):
            raise DataError(
                f"{what}: found {values.shape[1]} labels, expected {len(coding.classes)}: "
                f"{listing(coding.class_names)}."
            )
        return _bits(values, what, coding.class_names)
    number = {label: place for place, label in enumerate(coding.classes)}
    rows = np.zeros((len(values), len(number)), np.int32)
    for row, value in enumerate(values.tolist()):
        for label in labels_of(value, coding.delimiter or ""):
            if label not in number:
                raise DataError(
                    f"{what}: row {row + 1} has label {label!r}, which no training example has. "
                    f"Known: {listing(coding.class_names)}."
                )
            rows[row, number[label]] = 1
    return rows


def labels_of(value: object, delimiter: str) -> list[str]:
    """Returns the labels in a text; an empty or missing one holds none."""
    if value is None or value != value:
        return []
    text = value.decode() if isinstance(value, bytes) else str(value)
    parts = text.split(delimiter) if delimiter else [text]
    return [part.strip() for part in parts if part.strip()]


def _bits(values: np.ndarray, what: str, names: Sequence[str]) -> Int32[np.ndarray, "n labels"]:
    check_present(values, what, names)
    if not are_bits(values):
        good = np.isin(values, (0, 1)) if values.dtype.kind in "iuf" else np.zeros(values.shape)
        first = int(np.argmin(np.ravel(good)))
        raise DataError(
            f"{what}: {_place(first, values, names)} holds {values.ravel().tolist()[first]!r}; a "
            "label is there (1, true) or not (0, false)."
        )
    return values.astype(np.int32)


# --- numbers --------------------------------------------------------------------------------------


def _infer_values(
    values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None
) -> Coding:
    """Returns the coding of numbers to predict, one or several an example."""
    if values.ndim > 2:
        raise DataError(
            f"{what}: found targets of shape {values.shape}, expected one number an example or a "
            "row of them."
        )
    numbers = as_float32(values, what, names)
    if bool((numbers == numbers[0]).all()):
        raise _one_only(what, "value", values.tolist()[0], len(values))
    if values.ndim == 1:
        return Coding("regression", dtype="float32")
    outputs = tuple(names) or tuple(str(column) for column in range(values.shape[1]))
    return Coding("regression", outputs=outputs, shape=(len(outputs),), dtype="float32")


def _encode_values(values: np.ndarray, coding: Coding, what: str) -> Float32[np.ndarray, "n *k"]:
    """Returns finite float32 numbers."""
    values = values.reshape(len(values), *coding.shape) if values.ndim < 3 else values
    return as_float32(values, what, coding.outputs)


CODERS: dict[str, Coder] = {
    "classification": Coder(_infer_classes, _encode_classes),
    "multilabel": Coder(_infer_labels, _encode_labels),
    "regression": Coder(_infer_values, _encode_values),
    tags.TASK: tags.CODER,
    TASK: SEGMENTATION_CODER,
    target_texts.TASK: target_texts.CODER,
    TRANSCRIPTION: Coder(infer_transcripts, encode_transcripts),
    "pairs": OF_PAIRS,
    next_tokens.TASK: next_tokens.CODER,
}
"""How each bundled task codes its targets; `jdlopt.tasks.TASKS` says the rest of them."""


# --- what can't be a target -----------------------------------------------------------------------


def _place(index: int, values: np.ndarray, names: Sequence[str]) -> str:
    """Returns where a value lies, from its place in the flattened array."""
    if values.ndim == 1:
        return f"row {index + 1}"
    row, column = divmod(index, values.shape[1])
    return f"row {row + 1}, {names[column] if names else f'column {column + 1}'!r}"


def are_bits(values: np.ndarray) -> bool:
    """Returns whether values are booleans, or numbers that are all 0 or 1."""
    numbers = values.dtype.kind in "iuf" and bool(((values == 0) | (values == 1)).all())
    return values.dtype.kind == "b" or numbers


def missing_targets(values: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Returns which raw targets are missing: NaN or None."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(values.shape, bool)
    flags = [value is None or value != value for value in values.ravel()]
    return np.array(flags, dtype=bool).reshape(values.shape)


def check_present(values: np.ndarray, what: str, names: Sequence[str] = ()) -> None:
    """Raises a `DataError` that names the first target that is missing, if one is."""
    missing = missing_targets(values)
    if missing.any():
        first = _place(int(np.argmax(missing)), values, names)
        raise DataError(
            f"{what}: has {int(missing.sum())} missing values (NaN), the first in {first}. "
            "Remove these rows or fill the target in."
        )


def as_float32(
    values: np.ndarray, what: str, names: Sequence[str] = ()
) -> Float32[np.ndarray, "n *k"]:
    """Returns numbers as finite float32, or raises a `DataError` that names the first other."""
    check_present(values, what, names)
    if values.dtype.kind not in "biuf":
        for index, value in enumerate(values.ravel().tolist()):
            try:
                float(value)
            except (TypeError, ValueError):
                raise DataError(
                    f"{what}: {_place(index, values, names)} holds {value!r}, which is not a "
                    "number. Correct it, or set data.task='classification' if these are classes."
                ) from None
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        first = int(np.argmin(np.isfinite(numbers)))
        raise DataError(
            f"{what}: {_place(first, values, names)} holds {values.ravel()[first]!r}: expected a "
            "finite number."
        )
    return numbers
