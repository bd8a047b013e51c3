"""The next token as the target: rows of tokens, and of the token after each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from jdlopt.data.coding import PAD, Coder, Coding, Encoded
from jdlopt.data.pools import Arrays
from jdlopt.data.vocabulary import END_ID, PADDING_ID
from jdlopt.errors import DataError

TASK = "next_token"


def as_rows(tokens: Sequence[Int32[np.ndarray, " tokens"]], length: int) -> Arrays:
    """Returns texts as rows of tokens and of the token after each, `PAD` behind the last.

    Example:
      >>> rows = as_rows([np.array([5, 6, 7]), np.array([8])], 4)
      >>> rows.inputs.tolist(), rows.targets.tolist()
      ([[1, 5, 6, 7], [1, 8, 0, 0]], [[5, 6, 7, 1], [8, 1, -1, -1]])
    """
    end = np.array([END_ID], np.int32)
    stream = np.concatenate([end, *(part for one in tokens for part in (one, end))])
    count = -(-(len(stream) - 1) // length)
    inputs = np.full(count * length, PADDING_ID, np.int32)
    targets = np.full(count * length, PAD, np.int32)
    inputs[: len(stream) - 1], targets[: len(stream) - 1] = stream[:-1], stream[1:]
    return Arrays(inputs.reshape(count, length), targets.reshape(count, length))


def _refuse(values: np.ndarray, coding: object, what: str, *_: object) -> Encoded:
    raise DataError(
        f"{what}: data.task={TASK!r} takes texts alone, whose next token is the target: a file "
        "with a text a line, a folder, a table's data.text_column, or from Python a list of texts."
    )


def _infer(values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None) -> Coding:
    _refuse(values, None, what)
    raise AssertionError


CODER = Coder(_infer, _refuse)
"""Texts make their own targets; others are refused."""
