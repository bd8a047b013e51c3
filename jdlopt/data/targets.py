"""Targets: which task they make, which classes, labels or outputs there are, and their numbers."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Num

from jdlopt.config import find_part
from jdlopt.data.combined_labels import combined_note
from jdlopt.data.notation import alike, stripped
from jdlopt.data.notes import Note, Notes
from jdlopt.errors import ConfigError, DataError, listing

MAX_INFERRED_CLASSES = 20
"""A column of whole numbers with more distinct values than this is taken for regression."""

Encoded = Num[np.ndarray, "examples *target"]


@dataclass(frozen=True)
class Coding:
    """How raw targets become numbers.

    Attributes:
      task: a key of `CODERS`, or the dotted path of a task of the user's own.
      classes: the classes or labels as the source has them, in the order of their numbers.
      names: a name for each; by default the class itself, as text.
      outputs: a name for each of several numbers to predict.
      delimiter: what stands between the labels of an example, where a text holds them.
      shape: of one encoded target.
      dtype: of encoded targets.
      notes: what was guessed of the targets.
    """

    task: str
    classes: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    delimiter: str | None = None
    shape: tuple[int, ...] = ()
    dtype: str = "int32"
    notes: tuple[Note, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each class or label, in the order of the numbers."""
        return self.names or tuple(_class_name(value) for value in self.classes)


class Coder(NamedTuple):
    """How the targets of one task are coded.

    Attributes:
      infer: ``(values, what, names, delimiter) → Coding``: what the training targets say of how
        targets are coded. ``values`` are raw, [examples] or [examples, columns]; ``what`` names
        them in messages; ``names`` are the columns', or empty; ``delimiter`` stands between the
        labels of a text.
      encode: ``(values, coding, what) → targets``: one array [examples, …] of ``coding.dtype``,
        targets of unequal length padded to ``coding.shape``.
    """

    infer: Callable[[np.ndarray, str, Sequence[str], str | None], Coding]
    encode: Callable[[np.ndarray, Coding, str], Encoded]


def _class_name(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def infer_coding(
    values: np.ndarray,
    task: str,
    what: str,
    names: Sequence[str] = (),
    delimiter: str | None = None,
) -> Coding:
    """Returns how to code targets, with the task inferred where it is ``auto``.

    Of one target an example, text and booleans are classes; whole numbers are classes if there are
    at most 20 distinct ones; all other numbers are values to predict. With a delimiter, a text
    holds labels. Of several targets an example, 0 and 1 (or booleans) are classes where each
    example has exactly one 1, and labels otherwise; other numbers are values to predict.

    Args:
      values: raw targets [examples] or [examples, columns]: numbers, booleans or text.
      task: ``auto``, a key of `CODERS`, or the dotted path of a task.
      what: names the targets, for messages.
      names: the columns' names, where there are several.
      delimiter: what stands between the labels of an example; None: a text is one class.

    Raises:
      DataError: no targets, missing ones, one value only, or targets that the task can't have.

    Example:
      >>> infer_coding(np.array(["no", "yes", "no"]), "auto", "target").classes
      ('no', 'yes')
      >>> infer_coding(np.array([[1, 1], [0, 1], [0, 0]]), "auto", "target").task
      'multilabel'
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.size == 0:
        raise DataError(f"{what}: is empty, there are no examples.")
    if values.dtype.kind not in "biufSUOM":
        raise DataError(f"{what}: holds {values.dtype}; expected classes or real numbers.")
    notes: tuple[Note, ...] = ()
    if task == "auto":
        task, notes = _guess(values, what, names, delimiter)
    if delimiter is not None and task in ("classification", "regression"):
        raise DataError(
            f"data.label_delimiter: is {delimiter!r}, but data.task={task!r} has one target an "
            "example. Leave one of them out."
        )
    coding = coder_of(task).infer(values, what, names, delimiter)
    if values.ndim == 1 and values.dtype.kind in "SUO" and coding.task in LABELLED:
        labels = (label for value in values.tolist() for label in _texts_of(value, delimiter))
        note = combined_note(labels, len(values), delimiter)
        notes = (*notes, *([note] if note else []))
    return dataclasses.replace(coding, notes=(*coding.notes, *notes))


LABELLED = ("classification", "multilabel")
"""The tasks whose texts are labels."""


def _texts_of(value: object, delimiter: str | None) -> list[str]:
    """Returns the labels of an example that are texts."""
    if delimiter is not None:
        return _labels_of(value, delimiter)
    return [value] if isinstance(value, str) else []


def encode(values: np.ndarray, coding: Coding, what: str) -> Encoded:
    """Returns targets as numbers: classes and labels as int32, values as float32.

    Args:
      values: raw targets, as `infer_coding` takes them.
      coding: what it returned of the training targets.
      what: names the targets, for messages.

    Raises:
      DataError: a class that the coding does not know, or something that is not a number.
    """
    return coder_of(coding.task).encode(np.asarray(values), coding, what)


def coder_of(task: str) -> Coder:
    """Returns how a task codes its targets: of `CODERS`, or of a task of the user's own.

    Args:
      task: a key of `CODERS`, or the dotted path of a `jdlopt.tasks.Task`.

    Raises:
      ConfigError: there is no such task.
    """
    if task in CODERS:
        return CODERS[task]
    part = find_part(task, CODERS, "data.task", kind=object, or_function=False)
    coder = getattr(part, "coder", None)
    if not isinstance(coder, Coder):
        raise ConfigError(f"data.task {task!r}: is no jdlopt.tasks.Task.")
    return coder


def _guess(
    values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None
) -> tuple[str, tuple[Note, ...]]:
    """Returns the task that targets make, and what was guessed of it."""
    if delimiter is not None:
        return "multilabel", ()
    if values.ndim == 1:
        check_present(values, what)
        if values.dtype.kind not in "iuf":
            return "classification", ()
        whole = bool((values == np.floor(values)).all())
        few = len(np.unique(values)) <= MAX_INFERRED_CLASSES
        return ("classification" if whole and few else "regression"), ()
    if values.ndim > 2:
        raise DataError(
            f"{what}: found targets of shape {values.shape}, expected one target an example or a "
            "row of them, [examples] or [examples, targets]. Others need a task of your own, "
            "data.task='package.module:TASK'."
        )
    check_present(values, what, names)
    which = f"{what}: the targets of an example"

    def guessed(taken: str, remedy: str) -> tuple[Note, ...]:
        return (Note("guessed", f"{which} {taken}", values.shape[1], "targets", (), remedy),)

    if _are_bits(values):
        if bool((values.astype(np.int64).sum(axis=1) == 1).all()):
            return "classification", guessed(
                "are 0 and 1, with one 1 an example, and taken for classes",
                "If they are labels, set data.task='multilabel'.",
            )
        return "multilabel", guessed(
            "are 0 and 1, and taken for labels",
            "If they are numbers to predict, set data.task='regression'.",
        )
    return "regression", guessed(
        "are taken for numbers to predict", "data.task='regression' says so."
    )


def _are_bits(values: np.ndarray) -> bool:
    """Returns whether values are booleans, or numbers that are all 0 or 1."""
    numbers = values.dtype.kind in "iuf" and bool(((values == 0) | (values == 1)).all())
    return values.dtype.kind == "b" or numbers


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
    if _are_bits(values):
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
    found = [_labels_of(value, delimiter) for value in values.tolist()]
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
        for label in _labels_of(value, coding.delimiter or ""):
            if label not in number:
                raise DataError(
                    f"{what}: row {row + 1} has label {label!r}, which no training example has. "
                    f"Known: {listing(coding.class_names)}."
                )
            rows[row, number[label]] = 1
    return rows


def _labels_of(value: object, delimiter: str) -> list[str]:
    """Returns the labels in a text; an empty or missing one holds none."""
    if value is None or value != value:
        return []
    text = value.decode() if isinstance(value, bytes) else str(value)
    parts = text.split(delimiter) if delimiter else [text]
    return [part.strip() for part in parts if part.strip()]


def _bits(values: np.ndarray, what: str, names: Sequence[str]) -> Int32[np.ndarray, "n labels"]:
    check_present(values, what, names)
    if not _are_bits(values):
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
}
"""How each bundled task codes its targets; `jdlopt.tasks.TASKS` says the rest of them."""


# --- what can't be a target -----------------------------------------------------------------------


def _place(index: int, values: np.ndarray, names: Sequence[str]) -> str:
    """Returns where a value lies, from its place in the flattened array."""
    if values.ndim == 1:
        return f"row {index + 1}"
    row, column = divmod(index, values.shape[1])
    return f"row {row + 1}, {names[column] if names else f'column {column + 1}'!r}"


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
