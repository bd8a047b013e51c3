"""CSV files as text: how they are compressed, encoded and separated, and what their header is."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from jdlopt.data.notes import Notes
from jdlopt.errors import DataError, listing

SEPARATORS = (",", ";", "\t", "|")
UNNAMED = "Unnamed: "
"""How a column without a name is called, before its place."""
_SEP_LINE = re.compile(r'\ufeff?"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_LOOKED_AT = 4096
"""Bytes that tell the encoding."""


COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")


def endings(path: Path) -> tuple[str, str]:
    """Returns what a file's name says it holds, and how it is compressed.

    Example:
      >>> endings(Path("a.CSV.gz")), endings(Path("b.tsv"))
      (('.csv', '.gz'), ('.tsv', ''))
    """
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), suffix
    return suffix, ""


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, decompressed as its name says.

    Raises:
      DataError: an archive holds another number of files than one.
    """
    compression = endings(path)[1]
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if compression == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(file))
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise DataError(f"{path}: holds {len(names)} files; expected one table.")
            file = stack.enter_context(archive.open(names[0]))
        elif compression:
            opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[compression]
            file = stack.enter_context(opener(file, "rb"))
        yield file


def read_text(path: Path, notes: Notes) -> str:
    """Returns a whole file's text, decompressed and decoded as a CSV would be, lines ending in LF.

    Raises:
      OSError, UnicodeDecodeError: it can't be read.
    """
    with open_bytes(path) as file:
        raw = file.read()
    text = raw.decode(_encoding(raw[:_LOOKED_AT], path, notes))
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class CsvText:
    """An open CSV file.

    Attributes:
      file: its text, from the header on; lines end as they do in the file.
      separator: what stands between its values.
      header: the first line that is not blank; a column without a name has an empty one.
      trailing: how many empty values more than the header its first row ends in.
    """

    file: TextIO
    separator: str
    header: tuple[str, ...]
    trailing: int = 0

    @property
    def names(self) -> list[str]:
        """A name for each value of a row; of those without one, by their places."""
        given = [*self.header, *[""] * self.trailing]
        return [name if name.strip() else f"{UNNAMED}{i}" for i, name in enumerate(given)]


@contextlib.contextmanager
def long_fields() -> Iterator[None]:
    """Lets csv read values of any length within: its own limit is 131,072 characters."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def reader(file: Iterator[str], separator: str) -> Iterator[list[str]]:
    """Returns the rows of a CSV's lines, as every reader of tables here takes them."""
    return csv.reader(file, delimiter=separator, skipinitialspace=True)


@contextlib.contextmanager
def open_text(path: Path, notes: Notes, errors: str = "strict") -> Iterator[CsvText]:
    """Opens a CSV or TSV file; what is guessed of it is noted.

    It may be compressed, and in UTF-8 or UTF-16, with or without a byte order mark. A first line
    ``sep=;``, as Excel has it, says what separates values; else it is a comma, or in a TSV a tab,
    unless the header holds none and another of `SEPARATORS`.

    Args:
      path: the file.
      notes: where guesses are noted.
      errors: what becomes of bytes that are no text: ``strict`` raises, ``replace`` has ``�``.

    Raises:
      DataError: it is empty.
      OSError, UnicodeDecodeError, EOFError, lzma.LZMAError: it can't be read.
    """
    ending = endings(path)[0]
    with open_bytes(path) as raw:
        start = raw.read(_LOOKED_AT)
        encoding = _encoding(start, path, notes)
        bytes_ = raw if raw.seekable() else io.BytesIO(start + raw.read())
        bytes_.seek(0)
        with io.TextIOWrapper(bytes_, encoding=encoding, errors=errors, newline="") as file:
            yield _at_header(file, "\t" if ending == ".tsv" else ",", path, notes)


def _separates(text: str) -> bool:
    """Whether a text has what separates cells or lines: a lone zero byte makes no UTF-16."""
    return any(mark in text for mark in "\n\r,;\t")


def _encoding(start: bytes, path: Path, notes: Notes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    even, odd = start[0::2].count(0), start[1::2].count(0)
    for encoding, nulls, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        # letters of other scripts have no zero byte, but separators, digits and line ends do
        if nulls > len(start) / 20 and not others and _separates(start.decode(encoding, "ignore")):
            notes.add(
                "guessed", f"text without a byte order mark is taken for {encoding.upper()}",
                str(path), unit="files", remedy="Save the file in UTF-8 if it is something else.",
            )  # fmt: skip
            return encoding
    return "utf-8-sig"


def _at_header(file: TextIO, separator: str, path: Path, notes: Notes) -> CsvText:
    """Returns the file with its position at the header."""
    position = file.tell()
    line = file.readline()
    said = _SEP_LINE.fullmatch(line)
    if said is not None:
        separator, position = said[1], file.tell()
        notes.add("left out", f"the first line, which says sep={separator!r}", unit="lines")
    file.seek(position)
    header, row = _first_rows(file, separator)
    if header is None:
        raise DataError(f"{path}: is empty: expected a header line and rows.")
    others = [other for other in SEPARATORS if other != separator and other in header[0]]
    if said is None and len(header) == 1 and others:
        separator = max(others, key=header[0].count)
        file.seek(position)
        header, row = _first_rows(file, separator)
        assert header is not None
        notes.add(
            "guessed", f"columns are separated by {separator!r}", unit="files",
            remedy="A first line such as sep=, says otherwise.",
        )  # fmt: skip
    file.seek(position)
    more = (row or [])[len(header) :]
    trailing = 0 if any(cell.strip() for cell in more) else len(more)
    return CsvText(file, separator, tuple(header), trailing)


def _first_rows(file: TextIO, separator: str) -> tuple[list[str] | None, list[str] | None]:
    """Returns the first two rows that are not blank; None where there is none."""
    # `readline` and not the file's iterator, after which the position can't be told
    found: list[list[str]] = []
    with long_fields():
        for row in reader(iter(file.readline, ""), separator):
            if any(cell.strip() for cell in row) or (found and len(row) > 1):
                found.append(row)
            if len(found) == 2:
                break
    return (found[0] if found else None), (found[1] if len(found) > 1 else None)


def check_header(names: Sequence[str], path: Path) -> None:
    """Raises a `DataError` if two columns have one name."""
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: more than one column is called {listing(map(repr, twice))}. Rename them."
        )
