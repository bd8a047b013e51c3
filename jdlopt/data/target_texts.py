"""Targets that are texts: tokens of a vocabulary of their own, in the order they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int, Int32

from jdlopt.config import Count, Range
from jdlopt.data import text, vocabulary
from jdlopt.data.coding import END, PAD, Coder, Coding
from jdlopt.data.damage import Skipped, check_left
from jdlopt.data.text import TextFields, TextState
from jdlopt.data.text_cleaning import clean
from jdlopt.data.text_input import TextInput
from jdlopt.errors import DataError, UserError

TASK = "seq2seq"
"""The task whose targets are texts."""
END_NAME = "[END]"
"""What the token that ends a text is called."""

Parts = Mapping[str, tuple[str, np.ndarray | None]]


@dataclass(frozen=True)
class TargetTextFields:
    """The keys of a config's ``data.target_text`` section, of ``data.task='seq2seq'``.

    Attributes:
      tokenizer: ``bpe`` or ``characters``, trained on the training split's targets; or the path of
        a ``tokenizer.json``, as ``data.text.tokenizer``.
      vocab_size: the most entries that a trained vocabulary has, the end of a text and the unknown
        token among them.
      min_frequency: a pair of pieces that occurs less often is not merged; a character that does is
        unknown.
      max_tokens: tokens of a target at most, its end among them; a longer one can't be used. No
        longer text is predicted, nor one longer than the longest target of the data.
    """

    tokenizer: str = "bpe"
    vocab_size: Count = 8000
    min_frequency: Count = 2
    max_tokens: Annotated[int, Range(2)] = 128


# --- the coder ------------------------------------------------------------------------------------


def _infer(values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None) -> Coding:
    """Returns a coding without a vocabulary: `coded` learns it once the training rows are known."""
    if values.ndim > 1:
        raise DataError(f"{what}: a text is one column; data.task={TASK!r} has one target.")
    return Coding(TASK, positions=1)


def _encode(values: np.ndarray, coding: Coding, what: str) -> Int32[np.ndarray, "n tokens"]:
    """Returns the tokens of texts; none of them before there is a vocabulary."""
    if coding.text is None:
        return np.zeros((len(values), 0), np.int32)
    return encode([str(one) for one in values.tolist()], coding.text, coding.shape[0], what)


CODER = Coder(_infer, _encode)
"""How the targets of `TASK` are coded, but for what `coded` adds."""


def check(coding: Coding, source: str) -> None:
    """Raises a `DataError` for targets that are texts, of a source that does not learn of them."""
    if coding.task == TASK and coding.text is None:
        raise DataError(
            f"{source}: data.task={TASK!r} takes pairs of texts from a table (CSV, JSON lines, "
            "Parquet, a DataFrame) with a column of each, or from two files of lines."
        )


# --- texts and tokens -----------------------------------------------------------------------------


def _prepared(texts: Sequence[str], state: TextState) -> list[str]:
    return [clean(one, lowercase=state.lowercase) for one in texts]


def encode(
    texts: Sequence[str], known: TextInput, length: int, what: str
) -> Int32[np.ndarray, "n length"]:
    """Returns the tokens of each text, then `END`, then `PAD`.

    Raises:
      DataError: a text is empty, or has more tokens; says which.
    """
    tokens = _tokens(texts, known)
    for row, one in enumerate(tokens):
        if not 0 < len(one) < length:
            raise DataError(f"{what}: row {row + 1} {_fault(one, length)}")
    return _padded(tokens, length)


def _tokens(texts: Sequence[str], known: TextInput) -> list[Int32[np.ndarray, " tokens"]]:
    return vocabulary.load(known.state.tokenizer).encode(_prepared(texts, known.state))


def _padded(
    tokens: Sequence[Int32[np.ndarray, " tokens"]], length: int
) -> Int32[np.ndarray, "n length"]:
    made = np.full((len(tokens), length), PAD, np.int32)
    for row, one in zip(made, tokens, strict=True):
        row[: len(one)] = one
        row[len(one)] = END
    return made


def _fault(tokens: Int32[np.ndarray, " tokens"], most: int) -> str:
    """Says what is wrong with a target, and what to do."""
    if not len(tokens):
        return "has an empty target; expected a text."
    return (
        f"has a target of {len(tokens) + 1:,} tokens, its end among them; there is room for "
        f"{most:,}. Raise data.target_text.max_tokens, or shorten it."
    )


def decode(tokens: Int[np.ndarray, "n tokens"], known: TextInput) -> list[str]:
    """Returns the texts that tokens spell, each up to its `END`.

    Args:
      tokens: as `encode` returns them, or as a model writes them.
      known: of the targets.
    """
    ended = np.cumsum(tokens == END, axis=1) > 0
    return text.decode(known.state, np.where(ended | (tokens < 0), vocabulary.PADDING_ID, tokens))


def spelt_whole(tokens: Int[np.ndarray, "n tokens"]) -> Bool[np.ndarray, " n"]:
    """Returns which targets hold no unknown token, in place of what their vocabulary lacks."""
    return (tokens != vocabulary.UNKNOWN_ID).all(axis=1)


# --- what the training targets say ----------------------------------------------------------------


def coded(
    texts: Sequence[str | None],
    index: Sequence[object],
    coding: Coding,
    rows: Int[np.ndarray, " some"],
    parts: Parts,
    own: TargetTextFields,
    known: TextInput | None,
    where: str,
    skipped: Skipped | None,
) -> tuple[Coding, Int32[np.ndarray, "n length"], Parts]:
    """Returns the coding with a vocabulary, the tokens of all targets, and the splits.

    Args:
      texts: the targets of all rows; None where one is missing.
      index: what each row is called.
      coding: without a vocabulary.
      rows: those that the vocabulary is learnt from.
      parts: the rows of each split.
      own: the section ``data.target_text``.
      known: the vocabulary of a run, which is kept.
      where: names the source.
      skipped: where rows that are left out are counted; None: none is.

    Raises:
      DataError: a target is empty or too long, and such rows are not left out.
    """
    given = [one or "" for one in texts]
    found = known or TextInput("target", _fitted(own, [given[row] for row in rows]))
    tokens = _tokens(given, found)
    good = np.array([0 < len(one) < own.max_tokens for one in tokens], bool)
    for row in np.flatnonzero(~good).tolist():
        fault = _fault(tokens[row], own.max_tokens)
        if skipped is None:
            raise DataError(
                f"{where}: row {index[row]} {fault} It is one of {int((~good).sum()):,} rows that "
                "can't be used; data.on_bad='skip' leaves them out."
            )
        reason = "target too long" if len(tokens[row]) else "empty target"
        skipped.add(reason, f"{where}, row {index[row]}", f"it {fault}")
        tokens[row] = tokens[row][:0]
    if skipped is not None and not good.all():
        kept = {}
        for split, (pool, some) in parts.items():
            chosen = np.arange(len(given)) if some is None else some
            kept[split] = (pool, chosen[good[chosen]])
            check_left(kept[split][1], split, where, skipped)
        parts = kept
    length = max(map(len, tokens)) + 1
    names = (END_NAME, *found.state.tokens[1:])
    made = dataclasses.replace(coding, classes=names, shape=(length,), text=found)
    return made, _padded(tokens, length), parts


def _fitted(own: TargetTextFields, texts: Sequence[str]) -> TextState:
    """Returns the tokenizer of the training targets."""
    fields = TextFields(own.tokenizer, own.vocab_size, own.min_frequency, lowercase=False)
    try:
        return text.fit(fields, texts)
    except UserError as error:  # it speaks of the texts that are inputs
        raise type(error)(str(error).replace("data.text", "data.target_text")) from error
