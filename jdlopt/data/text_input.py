"""Texts as an input: a vocabulary fitted on the training texts, and the tokens of any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from jaxtyping import Int32

from jdlopt.data import text, words
from jdlopt.data.text import TextFields

Encoded = Int32[np.ndarray, "texts tokens"]


@dataclass(frozen=True)
class TextInput:
    """The one input of a dataset of texts.

    Attributes:
      column: the column or feature that holds the texts.
      state: the tokenizer's, as `jdlopt.data.text.fit` returns it.
      by_word: whether texts are cut into words first (`jdlopt.data.words`), each of which has a
        target.
      word_column: the number of the column of words in a CoNLL file.
    """

    column: str
    state: Any
    by_word: bool = False
    word_column: int = 0

    @property
    def size(self) -> int:
        """The number of token ids."""
        return self.state.vocab_size

    def vocabulary(self) -> dict[str, int]:
        """Returns the id of each token."""
        return {token: number for number, token in enumerate(self.state.tokens)}

    def encode(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> Encoded:
        """Returns the texts' token ids, cut or padded (with 0) to one length.

        Args:
          texts: texts; where they are cut into words, some may be lists of these.
        """
        if self.by_word:
            return words.encode(self.state, [words.cut(one).words for one in texts]).ids
        return text.encode(self.state, cast("Sequence[str]", texts))

    def meta(self) -> dict[str, Any]:
        """Returns JSON-able values that `from_meta` gives back."""
        saved = text.to_json(self.state)
        made = {"column": self.column, "size": self.size, "tokenizer": saved}
        if self.word_column:
            made["word_column"] = self.word_column
        return {**made, "by_word": True} if self.by_word else made


def fit_texts(
    fields: TextFields,
    column: str,
    texts: Sequence[str],
    known: TextInput | None = None,
    by_word: bool = False,
) -> TextInput:
    """Returns the `TextInput` of a column, its vocabulary taken from the training texts alone.

    Args:
      fields: the config's ``data.text`` section.
      column: the column or feature.
      texts: the training texts.
      known: those of a run, whose vocabulary and way of cleaning are kept.
      by_word: whether texts are cut into words first.
    """
    if known is not None:
        length = {"max_tokens": fields.max_tokens, "truncate": fields.truncate}
        return TextInput(column, replace(known.state, **length), by_word)
    return TextInput(column, text.fit(fields, texts), by_word)


def from_meta(saved: Mapping[str, object]) -> TextInput:
    """Returns the `TextInput` whose `TextInput.meta` was saved.

    Raises:
      DataError: the tokenizer's state is damaged.
    """
    state, by_word = text.from_json(saved["tokenizer"]), saved.get("by_word") is True
    column: Any = saved.get("word_column", 0)
    return TextInput(str(saved["column"]), state, by_word, int(column))
