"""A table cell by cell, read in spite of whatever is wrong with it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8

from jdlopt.data import csv_text
from jdlopt.data.columns import MOSTLY, TEXTS_LOOKED_AT
from jdlopt.data.csv_text import UNNAMED, CsvText, endings
from jdlopt.data.missing_words import AMBIGUOUS, MISSING_WORDS
from jdlopt.data.notation import Notation, find, parse, stripped
from jdlopt.data.notes import Notes
from jdlopt.data.table_files import CSV, read_table
from jdlopt.errors import DataError

NUMBER, MISSING, TEXT = 0, 1, 2
"""What a cell holds."""
TRUTH = {"true": 1.0, "false": 0.0}
CHUNK = 10_000
"""Rows that are turned into numbers at a time."""


@dataclass(frozen=True)
class Cells:
    """The cells of a table, and which of its rows do not fit its header.

    Attributes:
      path: the file, or the name of the dataset.
      names: the columns', made unique; untrusted.
      numbers: each cell's number; NaN where it holds none.
      kinds: `NUMBER`, `MISSING` or `TEXT` for each cell.
      texts: which of its column's `words` a cell of text is; -1 for other cells.
      words: the different texts of each column.
      widths: how many values each row has; all equal in a sound file.
      rows: what each row is called: its number in the file, from 1 below the header.
      renamed: columns that had no name, or another column's, in the file.
      unreadable: what the reader said of stretches of the file that it had to leave out.
    """

    path: str
    names: tuple[str, ...]
    numbers: Float64[np.ndarray, "rows columns"]
    kinds: UInt8[np.ndarray, "rows columns"]
    texts: Int32[np.ndarray, "rows columns"]
    words: tuple[tuple[str, ...], ...]
    widths: Int64[np.ndarray, " rows"]
    rows: Int64[np.ndarray, " rows"]
    renamed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    numeric: tuple[bool, ...] = field(init=False)

    def __post_init__(self) -> None:
        whole = self.kinds[self.whole]
        values = np.maximum(1, (whole != MISSING).sum(axis=0))
        share = (whole == NUMBER).sum(axis=0) / values
        has_text = (whole == TEXT).any(axis=0)
        object.__setattr__(self, "numeric", tuple((share >= MOSTLY) | ~has_text))

    @property
    def whole(self) -> Bool[np.ndarray, " rows"]:
        """Which rows have a value for each column of the header."""
        return self.widths == len(self.names)

    def shown(self, row: int, column: int) -> str:
        """Returns a cell as text."""
        if self.kinds[row, column] == TEXT:
            return self.words[column][self.texts[row, column]]
        return "" if self.kinds[row, column] == MISSING else f"{self.numbers[row, column]:g}"

    def codes(self, column: int) -> Int64[np.ndarray, " rows"]:
        """Returns a number for each different value of a column, -1 for missing ones."""
        _, found = np.unique(self.numbers[:, column], return_inverse=True)
        found = found.astype(np.int64) + len(self.words[column])
        found = np.where(self.kinds[:, column] == TEXT, self.texts[:, column], found)
        return np.where(self.kinds[:, column] == MISSING, -1, found)

    def features(self, columns: Sequence[int]) -> Float64[np.ndarray, "rows features"]:
        """Returns columns as numbers: categories as codes; NaN for all that is no finite number."""
        values = self.numbers[:, list(columns)].copy()
        for place, column in enumerate(columns):
            if not self.numeric[column]:
                codes = self.codes(column)
                values[:, place] = np.where(codes < 0, np.nan, codes)
        values[~np.isfinite(values)] = np.nan
        return values


def read_cells(
    path: Path, missing_values: Sequence[str] | None = None, decimal: str | None = None
) -> Cells:
    """Reads a table whatever its cells and rows hold, by the rules that a run reads it by.

    A row with too many or too few values is kept with its place and none of its values, since
    nothing says which column they belong to. Bytes that are no text become ``�``.

    Args:
      path: what `jdlopt.data.table_files.read_table` takes.
      missing_values, decimal: as there.

    Raises:
      DataError: it can't be read at all, or has no header or no rows.
    """
    if path.is_dir() or endings(path)[0] not in CSV:
        return _from_frame(path, missing_values, decimal)
    if missing_values is None:  # what is a category in one column is missing in another
        words = {"", *MISSING_WORDS} - set(AMBIGUOUS)
    else:
        words = {"", *missing_values}
    cells = _from_csv(path, words, {})
    # a column whose texts are numbers in another notation is read again: what looked like a
    # number of Python's in it, such as 1.234, may be another
    found = {
        place: _notation([word for word in known if word not in AMBIGUOUS], decimal)
        for place, known in enumerate(cells.words)
    }
    notations = {place: one for place, one in found.items() if one is not None}
    cells = _without_empty(_from_csv(path, words, notations) if notations else cells)
    return cells if missing_values is not None else _without_ambiguous(cells)


def _without_ambiguous(cells: Cells) -> Cells:
    """Takes words for missing values in columns of numbers and truth values, as a run does."""
    numbers, kinds, texts = cells.numbers.copy(), cells.kinds.copy(), cells.texts.copy()
    for place, known in enumerate(cells.words):
        maybe = [number for number, word in enumerate(known) if word in AMBIGUOUS]
        if not maybe:
            continue
        is_text = kinds[:, place] == TEXT
        which = is_text & np.isin(texts[:, place], maybe)
        others, count = is_text & ~which, int((kinds[:, place] == NUMBER).sum())
        truth = np.array([TRUTH.get(word.lower(), np.nan) for word in known])
        if others.any() and not count and np.isfinite(truth[texts[others, place]]).all():
            numbers[others, place] = truth[texts[others, place]]
            kinds[others, place], texts[others, place] = NUMBER, -1
        elif not count or count < MOSTLY * (count + others.sum()):
            continue
        kinds[which, place], texts[which, place] = MISSING, -1
    return dataclasses.replace(cells, numbers=numbers, kinds=kinds, texts=texts)


def _notation(known: Sequence[str], decimal: str | None) -> Notation | None:
    """Returns the notation that a column's texts are numbers in; None for words."""
    found = find(known[:: -(-len(known) // TEXTS_LOOKED_AT) or 1], decimal)
    return None if found.ambiguous else found.notation


def _from_csv(path: Path, missing: Container[str], notations: Mapping[int, Notation]) -> Cells:
    unreadable: list[str] = []
    try:
        with csv_text.open_text(path, Notes(), "replace") as opened, csv_text.long_fields():
            lines = _lines(opened, unreadable)
            next(lines)  # the header
            names, renamed = _names((*opened.header, *[""] * opened.trailing))
            return _from_lines(path, names, renamed, lines, unreadable, missing, notations)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: can't be read: {reason}.") from error


END = "\0the end"
"""A line after a file's last: a quote that is not closed swallows it."""


def _lines(opened: CsvText, unreadable: list[str]) -> Iterator[list[str]]:
    """Yields the rows that hold anything; what a quote that is not closed holds is noted."""
    held: list[str] = []  # the lines of the row that is being read
    number = 0

    def counted(lines: Iterable[str]) -> Iterator[str]:
        nonlocal number
        for line in lines:
            number += 1
            held.append(line)
            yield line

    left: Iterable[str] = itertools.chain(opened.file, ["\n", END])
    while True:
        held.clear()
        for row in csv_text.reader(counted(left), opened.separator):
            if row == [END]:
                return
            if held and held[-1] == END:
                break
            held.clear()
            if row:
                yield row
        first = number - len(held) + 1
        unreadable.append(f"lines {first:,} to {number - 2:,}: a quote is not closed")
        left, number = held[1:], first


def _names(header: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns a unique name for each column, and which of them the file itself does not have."""
    names: list[str] = []
    renamed = []
    for place, name in enumerate(header):
        unique = name if name.strip() else f"{UNNAMED}{place}"
        for number in itertools.count(1):
            if unique not in names:
                break
            unique = f"{name}.{number}"
        names.append(unique)
        renamed += [unique] if unique != name else []
    return tuple(names), tuple(renamed)


def _from_lines(
    path: Path,
    names: tuple[str, ...],
    renamed: tuple[str, ...],
    lines: Iterator[list[str]],
    unreadable: list[str],
    missing: Container[str],
    notations: Mapping[int, Notation],
) -> Cells:
    width = len(names)
    vocabularies: list[dict[str, int]] = [{} for _ in names]
    numbers, kinds, texts, widths = [], [], [], []
    blank = [""] * width
    while chunk := list(itertools.islice(lines, CHUNK)):
        found = np.fromiter(map(len, chunk), np.int64, len(chunk))
        for place in np.flatnonzero(found != width):
            chunk[place] = blank
        parsed = [
            _parse(np.array(column, dtype=object), vocabulary, missing, notations.get(place))
            for place, (column, vocabulary) in enumerate(
                zip(zip(*chunk, strict=True), vocabularies, strict=True)
            )
        ]
        numbers.append(np.stack([one[0] for one in parsed], axis=1))
        kinds.append(np.stack([one[1] for one in parsed], axis=1))
        texts.append(np.stack([one[2] for one in parsed], axis=1))
        widths.append(found)
    if not numbers:
        raise DataError(f"{path}: is empty: it has a header but no rows.")
    return _cells(
        str(path),
        names,
        np.concatenate(numbers),
        np.concatenate(kinds),
        np.concatenate(texts),
        [tuple(vocabulary) for vocabulary in vocabularies],
        np.concatenate(widths),
        renamed=renamed,
        unreadable=tuple(unreadable),
    )


def _parse(
    column: np.ndarray,
    vocabulary: dict[str, int],
    missing: Container[str],
    notation: Notation | None = None,
) -> tuple[np.ndarray, ...]:
    """Returns the numbers, kinds and texts of some cells; new texts join the vocabulary."""
    import pandas as pd

    if notation is None:
        numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    else:
        numbers = parse([stripped(str(cell)) for cell in column], notation)
    kinds = np.zeros(len(column), np.uint8)
    texts = np.full(len(column), -1, np.int32)
    for place in np.flatnonzero(np.isnan(numbers)):
        cell = stripped(str(column[place]))
        if cell in missing:
            kinds[place] = MISSING
        else:
            kinds[place] = TEXT
            texts[place] = vocabulary.setdefault(cell, len(vocabulary))
    return numbers, kinds, texts


def _cells(
    path: str,
    names: tuple[str, ...],
    numbers: np.ndarray,
    kinds: np.ndarray,
    texts: np.ndarray,
    words: list[tuple[str, ...]],
    widths: np.ndarray,
    **more: Any,
) -> Cells:
    for column, known in enumerate(words):
        values = [TRUTH.get(word.lower()) for word in known]
        if known and None not in values and not (kinds[:, column] == NUMBER).any():
            is_text = kinds[:, column] == TEXT
            numbers[is_text, column] = np.array(values)[texts[is_text, column]]
            kinds[is_text, column], texts[is_text, column] = NUMBER, -1
            words[column] = ()
    # a run computes in float32, where these are infinite
    with np.errstate(over="ignore"):
        too_large = np.isinf(numbers.astype(np.float32))
    numbers[too_large] = np.sign(numbers[too_large]) * np.inf
    rows = np.arange(1, len(numbers) + 1)
    return Cells(path, names, numbers, kinds, texts, tuple(words), widths, rows, **more)


def _without_empty(cells: Cells) -> Cells:
    """Leaves out columns without a name or value, as a run does."""
    kept = [
        place
        for place, name in enumerate(cells.names)
        if not (name.startswith(UNNAMED) and (cells.kinds[:, place] == MISSING).all())
    ]
    gone = len(cells.names) - len(kept)
    if not gone:
        return cells
    names = tuple(cells.names[place] for place in kept)
    return Cells(
        cells.path,
        names,
        cells.numbers[:, kept],
        cells.kinds[:, kept],
        cells.texts[:, kept],
        tuple(cells.words[place] for place in kept),
        cells.widths - gone,
        cells.rows,
        tuple(name for name in cells.renamed if name in names),
        cells.unreadable,
    )


def _from_frame(path: Path, missing_values: Sequence[str] | None, decimal: str | None) -> Cells:
    frame = read_table(path, missing_values=missing_values)
    if len(frame) == 0:
        raise DataError(f"{path}: is empty: it has a header but no rows.")
    names = tuple(str(name) for name in frame.columns)
    shape = frame.shape
    numbers, kinds = np.empty(shape), np.zeros(shape, np.uint8)
    texts, words = np.full(shape, -1, np.int32), []
    for place in range(shape[1]):
        vocabulary: dict[str, int] = {}
        column = frame.iloc[:, place]
        if column.dtype.kind == "m":
            column = column.dt.total_seconds()
        if column.dtype.kind in "biuf":
            numbers[:, place] = column.to_numpy(np.float64, na_value=np.nan)
            kinds[:, place] = np.where(np.isnan(numbers[:, place]), MISSING, NUMBER)
        else:
            cells = column.astype(object).to_numpy()
            cells = np.where(column.isna().to_numpy(), "", cells)
            texts_of_it = np.array([str(cell) for cell in cells], object)
            notation = _notation(list(dict.fromkeys(filter(None, texts_of_it))), decimal)
            parsed = _parse(texts_of_it, vocabulary, {""}, notation)
            numbers[:, place], kinds[:, place], texts[:, place] = parsed
        words.append(tuple(vocabulary))
    return _cells(
        str(path), names, numbers, kinds, texts, words, np.full(shape[0], shape[1], np.int64)
    )


def cells_of(
    name: str, names: Sequence[str], values: np.ndarray, rows: np.ndarray | None = None
) -> Cells:
    """Returns a matrix of numbers as cells, NaN being missing.

    Args:
      name: what the matrix is of.
      names: one for each column.
      values: [rows, columns].
      rows: what each row is called; counted from 0 by default.
    """
    numbers = np.asarray(values, np.float64)
    kinds = np.where(np.isnan(numbers), MISSING, NUMBER).astype(np.uint8)
    texts = np.full(numbers.shape, -1, np.int32)
    widths = np.full(len(numbers), len(names), np.int64)
    called = np.arange(len(numbers)) if rows is None else np.asarray(rows)
    words = tuple(() for _ in names)
    return Cells(
        name, tuple(str(one) for one in names), numbers, kinds, texts, words, widths, called
    )
