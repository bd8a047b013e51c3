"""Texts to predict for: of a file, a folder, a table's column, or a program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdlopt.data import conll, table_files, text_files, words
from jdlopt.data.columns import texts_of
from jdlopt.data.csv_text import read_text
from jdlopt.data.notes import Note, Notes
from jdlopt.data.text_input import TextInput
from jdlopt.data.walk import FileKind, PassedOver, files_under
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd


class NewTexts(NamedTuple):
    """Texts without targets.

    Attributes:
      texts: themselves, or the words of each, as `jdlopt.data.words.cut` takes them.
      ids: what to call each in the predictions.
      notes: what was guessed or left out.
    """

    texts: list[Any]
    ids: list[str]
    notes: tuple[Note, ...]


def read(place: Path, text: TextInput) -> NewTexts:
    """Reads texts: a table's column of the name it had, a file's lines, or a folder's files.

    Where each word is predicted for, a CoNLL file as well, and a table's lists of words.

    Raises:
      DataError: there are none.
    """
    suffix = place.suffix.lower()
    if text.by_word and conll.is_conll(place, "auto") and place.is_file():
        notes = Notes()
        return _numbered([*conll.as_words(place, text.word_column, notes)], notes, place)
    if place.is_dir() and not table_files.is_table(place):
        paths, ids, left = files_of(place, text_files.KIND)
        return NewTexts([text_files.read_file(path) for path in paths], ids, left)
    if suffix != ".txt" and not table_files.is_table(place):
        raise DataError(
            f"{place}: the model was trained on texts; expected a .txt file with one text a line, "
            f"a folder of such files with a text each, or a table with a column {text.column!r} "
            f"({', '.join(table_files.SUFFIXES)})."
        )
    notes = Notes()
    if suffix == ".txt":
        return _numbered(lines_of(place, notes), notes, place)
    table = table_files.read_table(place, raw_text=text.column, notes=notes)
    names = list(table.columns)
    if text.column not in names:
        hint = nearest(text.column, names) or f" Found: {listing(names)}."
        raise DataError(f"{place}: there is no column {text.column!r}, the texts'.{hint}")
    return _numbered(in_column(table[text.column], text), notes, place)


def _numbered(texts: list[Any], notes: Notes, place: Path) -> NewTexts:
    if not texts:
        raise DataError(f"{place}: is empty: it holds no text.")
    return NewTexts(texts, [str(row) for row in range(len(texts))], tuple(notes))


def in_column(column: pd.Series, text: TextInput) -> list[Any]:
    """Returns a column's texts; where words are predicted for, lists of words as they are.

    Texts are then cut into words at spaces alone, as a column with tags beside it is.
    """
    texts = texts_of(column).tolist()
    return _or_words(zip(column, texts), text, signs=False)


def in_memory(given: Iterable[object], text: TextInput, signs: bool = True) -> list[Any]:
    """Returns what a program gives as texts, or as the words of each.

    Args:
      given: texts, or lists of words.
      text: the input that they are for.
      signs: as `jdlopt.data.words.cut` takes it.
    """
    return _or_words(((one, str(one)) for one in given), text, signs)


def _or_words(pairs: Iterable[tuple[object, str]], text: TextInput, signs: bool) -> list[Any]:
    if not text.by_word:
        return [one for _, one in pairs]
    found: list[Any] = []
    for given, one in pairs:
        cell = given.tolist() if isinstance(given, np.ndarray) else given
        if isinstance(cell, words.Words):
            found.append(cell)
        elif isinstance(cell, list | tuple):
            found.append(tuple(map(str, cell)))
        else:
            found.append(one if signs else words.cut(one, signs=False))
    return found


def lines_of(place: Path, notes: Notes) -> list[str]:
    """Returns the lines of a file of texts; no other sign ends one: not U+2028, nor a form feed.

    Args:
      place: the file.
      notes: where is noted how it is encoded.

    Raises:
      DataError: it can't be read.
    """
    try:
        whole = read_text(place, notes)
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: can't be read as text in UTF-8: {error}.") from error
    return whole.removesuffix("\n").split("\n") if whole else []


def files_of(place: Path, kind: FileKind) -> tuple[list[Path], list[str], tuple[Note, ...]]:
    """Returns a file, or a folder's files of a kind however deep, their names, and what is left."""
    if not place.is_dir():
        return [place], [place.name], ()
    passed = PassedOver()
    paths = files_under(place, kind, passed)
    if not paths:
        why = f" Passed over: {passed}." if str(passed) else ""
        raise DataError(f"{place}: holds no {kind.name} ({listing(kind.suffixes)}).{why}")
    return paths, [path.relative_to(place).as_posix() for path in paths], tuple(passed.notes)
