"""Transcripts as targets: characters or pieces of words are classes, 0 is blank and padding."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from jdlopt.data import text as texts_in
from jdlopt.data.coding import BLANK, Coding
from jdlopt.data.text import TextFields
from jdlopt.data.text_cleaning import clean
from jdlopt.data.vocabulary import UNKNOWN
from jdlopt.errors import DataError, listing

TASK = "transcription"
PIECES = "bpe"
"""The ``data.text.tokenizer`` whose pieces transcripts are cut into."""
CHARACTERS = ("characters", "wordpiece")
"""Those with which they are cut into characters; the second is what other texts have by default."""


class Units(NamedTuple):
    """What texts are cut into.

    Attributes:
      number: of each character or piece.
      longest: characters that one has, at most; 1 where all are characters.
    """

    number: Mapping[str, int]
    longest: int


@functools.lru_cache(maxsize=8)
def units_of(class_names: tuple[str, ...]) -> Units:
    """Returns the units that classes stand for: pieces of words where one has several characters.

    Example:
      >>> units_of(("", "a", "b")).longest
      1
    """
    number = {name: place for place, name in enumerate(class_names) if name}
    return Units(number, max(map(len, number), default=1))


def characters_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Returns the classes of texts cut into characters, the blank first.

    Example:
      >>> characters_of(["b a", "ab"])
      ('', ' ', 'a', 'b')
    """
    return ("", *sorted({character for text in texts for character in text}))


def classes_of(texts: Sequence[str], fields: TextFields) -> tuple[str, ...]:
    """Returns the classes that training transcripts are cut into, the blank first.

    Args:
      texts: of the training split, in one form.
      fields: the ``data.text`` section.

    Raises:
      DataError: ``tokenizer`` is another than `PIECES` or `CHARACTERS`.
    """
    if fields.tokenizer == PIECES:
        return classes_of_pieces(texts_in.fit(fields, texts).tokens)
    if fields.tokenizer in CHARACTERS:
        return characters_of(texts)
    raise DataError(
        f"data.text.tokenizer: is {fields.tokenizer!r}; transcripts are cut into 'characters', or "
        f"into pieces of words, with {PIECES!r}."
    )


def classes_of_pieces(tokens: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes of texts cut into pieces, the blank first.

    Args:
      tokens: of a byte-level BPE tokenizer of `jdlopt.data.vocabulary`, whose first is padding.
    """
    return ("", *tokens[1:])


def outside(text: str, class_names: tuple[str, ...]) -> list[str]:
    """Returns the characters of a text that no class stands for; pieces are there for every text.

    Example:
      >>> outside("añb!", ("", "a", "b"))
      ['ñ', '!']
    """
    units = units_of(class_names)
    if units.longest > 1:
        return []
    return [one for one in dict.fromkeys(text) if one not in units.number]


def symbols_of(text: str, class_names: tuple[str, ...]) -> list[int]:
    """Returns the classes that spell a text, as few pieces as the longest first make of each word.

    Args:
      text: of characters that classes stand for.
      class_names: the blank first.

    Example:
      >>> symbols_of("abba", ("", "a", "b"))
      [1, 2, 2, 1]
    """
    units = units_of(class_names)
    if units.longest == 1:
        return [units.number[character] for character in text]
    from tokenizers import pre_tokenizers

    made: list[int] = []
    for word, _ in pre_tokenizers.ByteLevel(add_prefix_space=True).pre_tokenize_str(text):
        place = 0
        while place < len(word):
            end = min(len(word), place + units.longest)
            while word[place:end] not in units.number:  # each byte has a class
                end -= 1
            made.append(units.number[word[place:end]])
            place = end
    return made


def coding_of(texts: Sequence[str], class_names: tuple[str, ...]) -> Coding:
    """Returns the coding of transcripts, as long as the longest of them.

    Args:
      texts: all that are to be coded, none of them empty.
      class_names: what `characters_of` or `classes_of_pieces` returned.
    """
    shape = (max(_length(text, class_names) for text in texts),)
    return Coding(TASK, class_names, class_names, shape=shape, positions=1, pad=BLANK)


def _length(text: str, class_names: tuple[str, ...]) -> int:
    """Returns how many symbols a text has; characters that no class stands for count, too."""
    characters = units_of(class_names).longest == 1
    return len(text) if characters else len(symbols_of(text, class_names))


def padded(texts: Sequence[str], coding: Coding) -> Int32[np.ndarray, "n symbols"]:
    """Returns the classes that spell texts, padded with `BLANK` to the length of the coding.

    Where one of them is longer, as may be in an evaluation of other examples, to that one's.
    """
    symbols = [symbols_of(text, coding.class_names) for text in texts]
    longest = max(map(len, symbols), default=0)
    rows = np.full((len(texts), max(longest, *coding.shape)), BLANK, np.int32)
    for row, some in zip(rows, symbols, strict=True):
        row[: len(some)] = some
    return rows


# --- targets in memory ----------------------------------------------------------------------------


def infer_transcripts(
    values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None
) -> Coding:
    """Returns the coding of texts, as the ``data.text`` section has it by default."""
    return transcripts_as(TextFields(), values, what, {})


def transcripts_as(
    fields: TextFields, values: np.ndarray, what: str, others: Mapping[str, np.ndarray]
) -> Coding:
    """Returns the coding of texts: units of the training split's, as long as the longest of all.

    Args:
      fields: the ``data.text`` section.
      values: the training texts.
      what: names them, for messages.
      others: those of the other splits, by what they are called.

    Raises:
      DataError: one is no text, or empty; or there is no such tokenizer.
    """
    if values.ndim != 1:
        raise DataError(f"{what}: found shape {values.shape}, expected one text an example.")
    cleaning = Coding(TASK, lowercase=fields.lowercase, html=fields.html)
    texts = _cleaned(values, cleaning, what)
    every = [*texts]
    for name, some in others.items():
        every += _cleaned(some.reshape(-1), cleaning, name)
    coding = coding_of(every, classes_of(texts, fields))
    return dataclasses.replace(coding, lowercase=fields.lowercase, html=fields.html)


def encode_transcripts(
    values: np.ndarray, coding: Coding, what: str
) -> Int32[np.ndarray, "n symbols"]:
    """Returns the numbers of the characters or pieces of each text, then 0."""
    texts = _cleaned(values.reshape(len(values)), coding, what)
    for row, text in enumerate(texts, start=1):
        strange = outside(text, coding.class_names)
        if strange:
            raise DataError(
                f"{what}: row {row} holds {strange[0]!r}, which no training transcript has. "
                f"Known: {listing(map(repr, coding.class_names[1:]))}."
            )
    return padded(texts, coding)


def _cleaned(values: np.ndarray, coding: Coding, what: str) -> list[str]:
    """Returns texts in a coding's form, or raises a `DataError` that names the first other."""
    made = []
    for row, value in enumerate(values.tolist(), start=1):
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        text = ""
        if isinstance(value, str):
            text = clean(value, lowercase=coding.lowercase, html=coding.html)
        if not text:
            found = "an empty text" if isinstance(value, str) else repr(value)[:60]
            raise DataError(
                f"{what}: row {row} holds {found}; expected what is said, as text. Fill it in or "
                "leave the row out."
            )
        made.append(text)
    return made


# --- from steps to texts --------------------------------------------------------------------------


def collapsed(path: Int[np.ndarray, "n steps"]) -> Int[np.ndarray, "n steps"]:
    """Returns what paths of classes spell: repeats count once, blanks go; padded with `BLANK`.

    Graves, Fernández, Gomez and Schmidhuber, "Connectionist temporal classification", 2006.

    Example:
      >>> collapsed(np.array([[0, 3, 3, 0, 3, 1]])).tolist()
      [[3, 3, 1, 0, 0, 0]]
    """
    said = path != BLANK
    said[:, 1:] &= path[:, 1:] != path[:, :-1]
    order = np.argsort(~said, axis=1, kind="stable")
    kept = np.take_along_axis(said, order, axis=1)
    return np.where(kept, np.take_along_axis(path, order, axis=1), BLANK)


def texts_of(symbols: Int[np.ndarray, "n symbols"], class_names: tuple[str, ...]) -> list[str]:
    """Returns the texts that rows of classes spell, without spaces around them.

    Example:
      >>> texts_of(np.array([[2, 1, 2, 0], [0, 0, 0, 0]]), ("", " ", "a"))
      ['a a', '']
    """
    rows = [[class_names[one] for one in row if one != BLANK] for row in symbols.tolist()]
    if units_of(class_names).longest == 1:
        return ["".join(row).strip() for row in rows]
    from tokenizers import decoders

    decoder = decoders.ByteLevel()
    return [decoder.decode([one for one in row if one != UNKNOWN]).strip() for row in rows]


def steps_needed(symbols: Int[np.ndarray, "n symbols"]) -> Int[np.ndarray, " n"]:
    """Returns how many steps each transcript needs: one a symbol, and a blank between equal ones.

    Example:
      >>> steps_needed(np.array([[1, 2, 2, 0], [1, 1, 1, 1]])).tolist()
      [4, 7]
    """
    said = symbols != BLANK
    repeats = (symbols[:, 1:] == symbols[:, :-1]) & said[:, 1:]
    return said.sum(axis=1) + repeats.sum(axis=1)
