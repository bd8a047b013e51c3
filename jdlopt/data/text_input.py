"""Texts as an input: a vocabulary fitted on the training texts, and the tokens of any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int32

from jdlopt.data import text
from jdlopt.data.text import TextFields


@dataclass(frozen=True)
class TextInput:
    """The one input of a dataset of texts.

    Attributes:
      column: the column or feature that holds the texts.
      state: the tokenizer's, as `jdlopt.data.text.fit` returns it.
    """

    column: str
    state: Any

    @property
    def size(self) -> int:
        """The number of token ids."""
        return self.state.vocab_size

    def vocabulary(self) -> dict[str, int]:
        """Returns the id of each token."""
        return {token: number for number, token in enumerate(self.state.tokens)}

    def encode(self, texts: Sequence[str]) -> Int32[np.ndarray, "texts tokens"]:
        """Returns the texts' token ids, cut or padded (with 0) to one length."""
        return text.encode(self.state, texts)

    def meta(self) -> dict[str, Any]:
        """Returns JSON-able values that `from_meta` gives back."""
        saved = text.to_json(self.state)
        return {"column": self.column, "size": self.size, "tokenizer": saved}


def fit_texts(
    fields: TextFields, column: str, texts: Sequence[str], known: TextInput | None = None
) -> TextInput:
    """Returns the `TextInput` of a column, its vocabulary taken from the training texts alone.

    Args:
      fields: the config's ``data.text`` section.
      column: the column or feature.
      texts: the training texts.
      known: those of a run, whose vocabulary and way of cleaning are kept.
    """
    if known is not None:
        length = {"max_tokens": fields.max_tokens, "truncate": fields.truncate}
        return TextInput(column, replace(known.state, **length))
    return TextInput(column, text.fit(fields, texts))


def from_meta(saved: Mapping[str, object]) -> TextInput:
    """Returns the `TextInput` whose `TextInput.meta` was saved.

    Raises:
      DataError: the tokenizer's state is damaged.
    """
    return TextInput(str(saved["column"]), text.from_json(saved["tokenizer"]))
