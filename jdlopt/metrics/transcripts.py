"""How far transcripts are from what is said: the rates of wrong words and characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jdlopt.data.transcript_coding import collapsed, texts_of
from jdlopt.metrics.edits import distances
from jdlopt.metrics.scores import Split


def words(text: str) -> list[str]:
    """Returns the words of a transcript."""
    return text.split()


def error_rate(
    true: Sequence[str], said: Sequence[str], parts: Callable[[str], Sequence[str]] = words
) -> float:
    """Returns the edits that make all hypotheses of the references, by the references' parts.

    Args:
      true: what is said.
      said: what a model hears.
      parts: cuts a text into what is counted: `words`, or ``list`` for characters.

    Example:
      >>> error_rate(["one two", "three"], ["one too", "three four"])
      0.6666666666666666
    """
    whole, found = ([parts(text) for text in some] for some in (true, said))
    count = sum(map(len, whole))
    return float(distances(whole, found).sum() / count) if count else float("nan")


def _rate(parts: Callable[[str], Sequence[str]]) -> Callable[[Split], float]:
    def compute(split: Split) -> float:
        names, leaves = split.class_names, split.leaves
        heard = texts_of(collapsed(np.asarray(leaves["path"])), names)
        return error_rate(texts_of(leaves["symbols"], names), heard, parts)

    return compute


word_error_rate = _rate(words)
"""Of a split: the share of words that are replaced, left out or added."""
character_error_rate = _rate(list)
"""Of a split: the same of characters."""
