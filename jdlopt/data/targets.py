"""Targets: which task they make, how they are coded then, and their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jdlopt.config import find_part
from jdlopt.data.coders import CODERS, are_bits, check_present, labels_of
from jdlopt.data.coding import Coder, Coding, Encoded
from jdlopt.data.combined_labels import combined_note
from jdlopt.data.notes import Note
from jdlopt.data.text import TextFields
from jdlopt.data.transcript_coding import TASK as TRANSCRIPTION
from jdlopt.data.transcript_coding import transcripts_as
from jdlopt.errors import ConfigError, DataError

MAX_INFERRED_CLASSES = 20
"""A column of whole numbers with more distinct values than this is taken for regression."""


def infer_coding(
    values: np.ndarray,
    task: str,
    what: str,
    names: Sequence[str] = (),
    delimiter: str | None = None,
    text: TextFields | None = None,
    others: Mapping[str, np.ndarray] | None = None,
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
      text: the ``data.text`` section, as transcripts are cut into units; None: its defaults.
      others: the raw targets of other splits, by what they are called, as long as the longest of
        which transcripts are coded.

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
    if task == TRANSCRIPTION:
        return transcripts_as(text or TextFields(), values, what, others or {})
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
        return labels_of(value, delimiter)
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
            "row of them, [examples] or [examples, targets]. If they are masks, a class number at "
            "each pixel, set data.task='segmentation'; others need a task of your own, "
            "data.task='package.module:TASK'."
        )
    check_present(values, what, names)
    which = f"{what}: the targets of an example"

    def guessed(taken: str, remedy: str) -> tuple[Note, ...]:
        return (Note("guessed", f"{which} {taken}", values.shape[1], "targets", (), remedy),)

    if are_bits(values):
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
