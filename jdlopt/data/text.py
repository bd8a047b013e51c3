"""Texts as model inputs: cleaned, cut into the tokens of a vocabulary, one length, on the host."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int, Int32

from jdlopt import writing
from jdlopt.config import Choice, Count, section_of
from jdlopt.data import vocabulary
from jdlopt.data.text_cleaning import clean
from jdlopt.errors import ConfigError, DataError, listing, nearest

TRUNCATIONS = ("end", "start", "middle")
STOP_WORDS = ("none", "english")

_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class TextFields:
    """The keys of a config's ``data.text`` section.

    Attributes:
      tokenizer: ``wordpiece``, ``bpe`` or ``characters``, trained on the training split's texts; or
        the path of a ``tokenizer.json`` in the format of Hugging Face's ``tokenizers``, taken as it
        is.
      vocab_size: the most entries that a trained vocabulary has, padding and unknown among them.
      min_frequency: a pair of pieces that occurs less often in the training texts is not merged; a
        character that does is unknown.
      max_tokens: tokens that a text is cut or padded to.
      truncate: what is cut off a longer text: its ``end``, its ``start``, or its ``middle``.
      lowercase: make all letters small; False for a tokenizer file that knows capitals.
      html: take tags out and replace entities (``&amp;``) by what they stand for.
      stop_words: words that are left out: ``none``, ``english`` (scikit-learn's list), or the path
        of a file with one word a line.
      template: put what a tokenizer file's template has around each text, such as BERT's ``[CLS]``
        and ``[SEP]``; pretrained weights were made with it.
    """

    tokenizer: str = "wordpiece"
    vocab_size: Count = 8000
    min_frequency: Count = 2
    max_tokens: Count = 128
    truncate: Annotated[str, Choice(TRUNCATIONS)] = "end"
    lowercase: bool = True
    html: bool = False
    stop_words: str = "none"
    template: bool = False


@dataclass(frozen=True)
class TextState:
    """What `encode` needs, from the training split.

    Attributes:
      tokenizer: the tokenizer, as JSON text.
      max_tokens, truncate, lowercase, html: as in `TextFields`.
      stop_words: the words that are left out, in small letters.
      before, after: the ids of the template around each text.
    """

    tokenizer: str
    max_tokens: int
    truncate: str
    lowercase: bool
    html: bool
    stop_words: tuple[str, ...]
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The token of each id: padding, the unknown token, and the others."""
        return vocabulary.load(self.tokenizer).tokens

    @property
    def vocab_size(self) -> int:
        """The number of ids: an embedding needs so many rows."""
        return len(self.tokens)


# --- words that are left out ----------------------------------------------------------------------


def _stop_words(name: str) -> tuple[str, ...]:
    """Returns the words that ``data.text.stop_words`` means, sorted."""
    if name == "none":
        return ()
    if name == "english":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # takes a second to import

        return tuple(sorted(ENGLISH_STOP_WORDS))
    path = writing.expanded(name)
    if not path.exists() and path.name == name and not path.suffix:
        raise ConfigError(
            f"data.text.stop_words: {name!r} is unknown.{nearest(name, STOP_WORDS)} Known: "
            f"{listing(STOP_WORDS)}; or the path of a file with one word a line."
        )
    words = set()
    for row, line in enumerate(_read(path, "data.text.stop_words").split("\n"), start=1):
        word = clean(line, lowercase=True)
        if word and not _WORD.fullmatch(word):
            raise DataError(
                f"{path}, row {row}: found {word[:60]!r}, expected one word a line, of letters, "
                "digits and apostrophes."
            )
        words.add(word.replace("’", "'"))
    return tuple(sorted(words - {""}))


def _read(path: Path, key: str) -> str:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{key}: {path} can't be read: it is no plain file.")
    try:
        if path.stat().st_size > vocabulary.LARGEST:
            raise ValueError(f"it has more than {vocabulary.LARGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not UTF-8 text ({error})"
        raise DataError(f"{key}: {path} can't be read: {reason}.") from error


def _prepared(
    texts: Iterable[object], lowercase: bool, html: bool, stop_words: Sequence[str]
) -> Iterator[str]:
    """Yields what is left of each text after cleaning."""
    left_out = frozenset(stop_words)
    for row, text in enumerate(texts):
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="replace")
        if not isinstance(text, str):
            raise DataError(
                f"texts: row {row} (counted from 0) holds {text!r:.60}, expected text. Remove the "
                "row or fill it in."
            )
        text = clean(text, lowercase=lowercase, html=html)
        if left_out:
            kept = _WORD.sub(
                lambda match: "" if match[0].lower().replace("’", "'") in left_out else match[0],
                text,
            )
            text = " ".join(kept.split())
        yield text


# --- vocabulary and ids ---------------------------------------------------------------------------


def fit(fields: TextFields | Mapping[str, object], texts: Iterable[str | bytes]) -> TextState:
    """Returns what `encode` needs: the training texts' vocabulary, or a tokenizer file's.

    Equal texts give an equal vocabulary, whatever their order.

    Args:
      fields: the ``data.text`` section.
      texts: the training split's texts; not looked at where the tokenizer is a file.

    Raises:
      ConfigError: an unknown tokenizer, or a vocabulary too small for it.
      DataError: a file can't be read or is no tokenizer, or the texts hold no word.

    Example:
      >>> state = fit({"max_tokens": 4}, ["the cat sat", "the cat ran"])
      >>> encode(state, ["cat the", "Zoo"]).shape, decode(state, encode(state, ["the cat"]))
      ((2, 4), ['the cat'])
    """
    if not isinstance(fields, TextFields):
        fields = section_of(TextFields, fields, "data.text")
    stop_words = _stop_words(fields.stop_words)
    if fields.tokenizer in vocabulary.TOKENIZERS:
        counts = vocabulary.count_words(_prepared(texts, fields.lowercase, fields.html, stop_words))
        tokenizer = _trained(fields, counts)
    else:
        tokenizer = _tokenizer_file(fields.tokenizer)
    before, after = vocabulary.load(tokenizer).template() if fields.template else ((), ())
    if fields.template and len(before) + len(after) in (0, fields.max_tokens):
        why = "the tokenizer has none" if not (before or after) else "no token is left for the text"
        raise ConfigError(f"data.text.template: {why}. Set it to False, or raise max_tokens.")
    return TextState(
        tokenizer=tokenizer,
        max_tokens=fields.max_tokens,
        truncate=fields.truncate,
        lowercase=fields.lowercase,
        html=fields.html,
        stop_words=stop_words,
        before=before,
        after=after,
    )


def _trained(fields: TextFields, counts: collections.Counter[str]) -> str:
    if not counts:
        raise DataError(
            "data.text: the training texts hold no word after cleaning"
            f"{'' if fields.stop_words == 'none' else ' and without stop words'}. Is "
            "data.text_column the right column?"
        )
    if fields.vocab_size < 4:
        raise ConfigError(
            f"data.text.vocab_size: {fields.vocab_size} leaves no place for tokens beside padding "
            "and the unknown token; set some thousands."
        )
    train = vocabulary.TOKENIZERS[fields.tokenizer]
    return train(counts, fields.vocab_size, fields.min_frequency)


def _tokenizer_file(name: str) -> str:
    path = writing.expanded(name)
    if not path.exists() and path.suffix != ".json":
        raise ConfigError(
            f"data.text.tokenizer: {name!r} is unknown.{nearest(name, vocabulary.TOKENIZERS)} "
            f"Known: {listing(vocabulary.TOKENIZERS)}; or the path of a tokenizer.json."
        )
    text = _read(path, "data.text.tokenizer")
    try:
        vocabulary.load(text)
    except DataError as error:
        raise DataError(f"data.text.tokenizer: {path} {error}") from error
    return text


def encode(state: TextState, texts: Sequence[str | bytes]) -> Int32[np.ndarray, "texts tokens"]:
    """Returns the token ids of each text: 0 for padding, at the end, and 1 for the unknown token.

    A text without words is all padding, but for the template where there is one.

    Args:
      state: what `fit` returned.
      texts: any texts.

    Raises:
      DataError: a text is missing (None, NaN), or the tokenizer fails on one.
    """
    ids = np.full((len(texts), state.max_tokens), vocabulary.PADDING_ID, dtype=np.int32)
    for row, tokens in zip(ids, tokens_of(state, texts), strict=True):
        room = state.max_tokens - len(state.before) - len(state.after)
        kept = [*state.before, *truncated(tokens, room, state.truncate), *state.after]
        row[: len(kept)] = kept
    return ids


def tokens_of(state: TextState, texts: Sequence[str | bytes]) -> list[np.ndarray]:
    """Returns the token ids of each text, all of them, without a template.

    Args:
      state: what `fit` returned.
      texts: any texts.

    Raises:
      DataError: a text is missing (None, NaN), or the tokenizer fails on one.
    """
    prepared = list(_prepared(texts, state.lowercase, state.html, state.stop_words))
    return vocabulary.load(state.tokenizer).encode(prepared)


def truncated(tokens: Int[np.ndarray, " tokens"], most: int, side: str) -> np.ndarray:
    """Returns at most so many tokens, after cutting off the ``end``, ``start`` or ``middle``.

    Without their middle, texts keep their first and last tokens, as in Sun et al., "How to
    fine-tune BERT for text classification?", 2019 (https://arxiv.org/abs/1905.05583).

    Example:
      >>> {side: truncated(np.arange(9), 5, side).tolist() for side in TRUNCATIONS}
      {'end': [0, 1, 2, 3, 4], 'start': [4, 5, 6, 7, 8], 'middle': [0, 1, 2, 7, 8]}
    """
    if len(tokens) <= most:
        return tokens
    first = {"end": most, "start": 0, "middle": most - most // 2}[side]
    return np.concatenate([tokens[:first], tokens[len(tokens) - (most - first) :]])


def decode(state: TextState, ids: Int[np.ndarray, "texts tokens"]) -> list[str]:
    """Returns the texts that ids stand for, as far as their tokens tell it.

    Args:
      state: what `fit` returned.
      ids: what `encode` returned.

    Raises:
      DataError: an id is none of the vocabulary's.
    """
    ids = np.asarray(ids)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"ids: expected integers [texts, tokens], found {ids.dtype} {ids.shape}.")
    wrong = (ids < 0) | (ids >= state.vocab_size)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"ids: row {row}, token {column} is {ids[row, column]}; the vocabulary has ids from 0 "
            f"to {state.vocab_size - 1}."
        )
    around = np.isin(ids, [*state.before, *state.after])
    texts = vocabulary.load(state.tokenizer).decode(np.where(around, vocabulary.PADDING_ID, ids))
    return [text.removeprefix(" ") for text in texts]  # a space before the first word, as any


# --- saving ---------------------------------------------------------------------------------------


def to_json(state: TextState) -> dict[str, Any]:
    """Returns a state as JSON-able values, which `from_json` makes the same state of."""
    lists = ("stop_words", "before", "after")
    return {**dataclasses.asdict(state), **{key: list(getattr(state, key)) for key in lists}}


def from_json(saved: object, where: str = "text") -> TextState:
    """Returns the state that `to_json` was given.

    Args:
      saved: values that may come from anywhere; nothing in them is run.
      where: names their place, for messages.

    Raises:
      DataError: a value is missing, or is not what it must be; says which.
    """
    if not isinstance(saved, Mapping):
        raise DataError(f"{where}: expected a tokenizer's state, found {type(saved).__name__}.")
    kinds = {"tokenizer": str, "max_tokens": int, "truncate": str, "lowercase": bool, "html": bool}
    for key in (*kinds, "stop_words"):
        if key not in saved:
            raise DataError(f"{where}: {key!r} is missing; found {listing(saved) or 'nothing'}.")
    for key, kind in kinds.items():
        if type(saved[key]) is not kind:
            raise DataError(f"{where}: {key!r} must be {kind.__name__}, found {saved[key]!r:.60}.")
    if saved["max_tokens"] < 1:
        raise DataError(f"{where}: 'max_tokens' must be at least 1, found {saved['max_tokens']}.")
    if saved["truncate"] not in TRUNCATIONS:
        raise DataError(
            f"{where}: 'truncate' must be one of {listing(TRUNCATIONS)}, found "
            f"{saved['truncate']!r:.60}."
        )
    words = saved["stop_words"]
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{where}: 'stop_words' must be a list of words, found {words!r:.60}.")
    try:
        size = len(vocabulary.load(saved["tokenizer"]).tokens)
    except DataError as error:
        raise DataError(f"{where}: 'tokenizer' {error}") from error
    around: dict[str, tuple[int, ...]] = {}
    for key in ("before", "after"):  # runs of earlier versions have none
        some = saved.get(key, ())
        if not isinstance(some, list | tuple) or not all(
            type(one) is int and 0 <= one < size for one in some
        ):
            raise DataError(f"{where}: {key!r} must be a list of ids, found {some!r:.60}.")
        around[key] = tuple(some)
    return TextState(
        **{key: saved[key] for key in kinds},
        stop_words=tuple(words),
        before=around["before"],
        after=around["after"],
    )
