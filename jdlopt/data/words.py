"""Words within texts: where each stands, and which token of a row is the first of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from jdlopt.data import vocabulary
from jdlopt.data.text import TextState, truncated
from jdlopt.data.text_cleaning import clean

_RUN = re.compile(r"\S+")


class Words(NamedTuple):
    """The words of a text.

    Attributes:
      words: themselves.
      spans: where each begins in the text, counted in characters from 0, and behind which it ends.
      text: the text.
    """

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    text: str


def cut(text: str | Sequence[str] | Words, signs: bool = True) -> Words:
    """Returns the words of a text; of a list of words, these, with one space between them.

    Args:
      text: the text or words; what is cut already stays as it is.
      signs: whether signs at the ends of what stands between spaces are words of their own. In
        training data, whose tags say what a word is, they are not.

    Example:
      >>> cut("(Ann's) 3.5 km.").words
      ('(', "Ann's", ')', '3.5', 'km', '.')
      >>> cut(["New", "York"]).spans
      ((0, 3), (4, 8))
    """
    if isinstance(text, Words):
        return text
    spans: list[tuple[int, int]] = []
    if not isinstance(text, str):
        at = 0
        for word in text:
            spans.append((at, at + len(word)))
            at += len(word) + 1
        return Words(tuple(text), tuple(spans), " ".join(text))
    for match in _RUN.finditer(text):
        start, end = match.span()
        first, last = start, end
        while signs and first < last and _is_sign(text[first]):
            first += 1
        while signs and last > first and _is_sign(text[last - 1]):
            last -= 1
        spans += [(at, at + 1) for at in range(start, first)]
        spans += [(first, last)] if first < last else []
        spans += [(at, at + 1) for at in range(last, end)]
    return Words(tuple(text[start:end] for start, end in spans), tuple(spans), text)


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


class WordTokens(NamedTuple):
    """Sentences of words as tokens.

    Attributes:
      ids: as `jdlopt.data.text.encode` has those of texts.
      firsts: of each sentence, where in its row the first token of each word stands; -1 for a word
        that has none: it was cut off, or cleaning leaves nothing of it.
    """

    ids: Int32[np.ndarray, "sentences tokens"]
    firsts: list[Int[np.ndarray, " words"]]


def encode(state: TextState, sentences: Iterable[Sequence[str]]) -> WordTokens:
    """Returns the tokens of sentences, which are those of the words with a space between them.

    Args:
      state: the tokenizer's; it must leave out no words.
      sentences: the words of each.

    Raises:
      DataError: the tokenizer fails on one.

    Example:
      >>> from jdlopt.data import text
      >>> state = text.fit({"vocab_size": 12, "max_tokens": 6}, ["ab abc"])
      >>> found = encode(state, [["ab", "abc"]])
      >>> [state.tokens[token] for token in found.ids[0]], found.firsts[0].tolist()
      (['ab', 'ab', '##c', '[PAD]', '[PAD]', '[PAD]'], [0, 1])
    """
    cleaned = [
        [clean(word, lowercase=state.lowercase, html=state.html) for word in words]
        for words in sentences
    ]
    texts = [" ".join(filter(None, words)) for words in cleaned]
    ids = np.full((len(texts), state.max_tokens), vocabulary.PADDING_ID, np.int32)
    room = state.max_tokens - len(state.before) - len(state.after)
    firsts = []
    found = vocabulary.load(state.tokenizer).encode_with_places(texts)
    for row, words, (tokens, places) in zip(ids, cleaned, found, strict=True):
        kept = truncated(np.arange(len(tokens)), room, state.truncate)
        whole = [*state.before, *tokens[kept], *state.after]
        row[: len(whole)] = whole
        standing = np.full(len(tokens) + 1, -1)  # the last is that of a word without a token
        standing[kept] = len(state.before) + np.arange(len(kept))
        firsts.append(standing[_firsts(words, places)])
    return WordTokens(ids, firsts)


def _firsts(words: Sequence[str], places: Int[np.ndarray, "tokens 2"]) -> Int[np.ndarray, " words"]:
    """Returns the first token of each word; -1 where it has none of its own."""
    lengths = np.array([len(word) for word in words], int)
    starts = np.cumsum(lengths + (lengths > 0)) - lengths - (lengths > 0)
    begins, ends = places.T
    first = np.searchsorted(np.maximum.accumulate(ends), starts, side="right")
    there = (lengths > 0) & (first < len(places))
    there[there] &= begins[first[there]] < (starts + lengths)[there]
    taken: set[int] = set()
    for word in np.flatnonzero(there).tolist():  # a token of two words is the first one's
        there[word] = int(first[word]) not in taken
        taken.add(int(first[word]))
    return np.where(there, first, -1)
