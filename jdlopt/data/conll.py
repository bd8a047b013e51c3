"""CoNLL files: a word and its tag a line, a blank line between sentences."""

from __future__ import annotations

from pathlib import Path

from jdlopt import writing
from jdlopt.data.csv_text import endings, read_text
from jdlopt.data.dataset import PLAIN, Dataset, Reading
from jdlopt.data.fields import DataFields
from jdlopt.data.notes import Notes
from jdlopt.data.split import split_named
from jdlopt.data.tagged import LINE, Tagged, open_tagged
from jdlopt.data.tags import TASK, problem
from jdlopt.data.walk import check_file
from jdlopt.errors import DataError

SUFFIXES = (".conll", ".iob", ".iob2", ".bio")
"""Files of these endings are read so; others where ``data.task`` asks for it."""
OTHERS = (".txt",)
DOCSTART = "-DOCSTART-"


def is_conll(path: Path, task: str) -> bool:
    """Returns whether a file is one, or a folder has one for training, by its name."""
    if path.is_dir():
        return "train" in _by_split(path, task)
    known = SUFFIXES if task != TASK else (*SUFFIXES, *OTHERS)
    return endings(path)[0] in known


def _by_split(folder: Path, task: str) -> dict[str, Path]:
    """Returns the files of a folder that are called by the name of a split."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = split_named(path.name.split(".")[0])
        if split is None or not path.is_file() or not is_conll(path, task):
            continue
        if split in found:
            raise DataError(
                f"{folder}: has two files for the split {split!r}: {found[split].name} and "
                f"{path.name}. Leave one, or name the files with data.source, "
                "data.validation_source and data.test_source."
            )
        found[split] = path
    return found


def open_conll(name: str, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a CoNLL file, or a folder of one for each split (``train.txt``, ``valid.txt``).

    Args:
      name: the file or folder.
      fields: the data section: ``text_column`` and ``target`` are the numbers of the columns of
        words and of tags, counted from 0, or from the end as -1; by default the first and the last.
        ``validation_source`` and ``test_source`` name the files of these splits.
      reading: how words are cut into tokens.

    Raises:
      DataError: a file can't be read, or a line of it is no word with a BIO tag.
    """
    path = writing.expanded(name)
    if fields.task not in ("auto", TASK):
        raise DataError(
            f"{path}: has a tag for each word; data.task={fields.task!r} can't be had of it. Leave "
            f"data.task out, or set {TASK!r}."
        )
    files = _by_split(path, fields.task) if path.is_dir() else {"train": path}
    for split in ("validation", "test"):
        named = getattr(fields, f"{split}_source")
        if named is not None:
            files[split] = writing.expanded(named)
    columns = _columns(fields)
    notes = Notes()
    found: dict[str, Tagged] = {}
    for split, file in files.items():
        check_file(file, "data.source" if split == "train" else f"data.{split}_source")
        found[split] = read_conll(file, columns, notes)
    return open_tagged(
        found, fields, reading, name=path.stem, column="text", word_column=columns[0], notes=notes
    )


def _columns(fields: DataFields) -> tuple[int, int]:
    """Returns the numbers of the columns of words and of tags."""
    found = []
    for key, value, usual in (
        ("text_column", fields.text_column, 0), ("target", fields.target, -1),
    ):  # fmt: skip
        try:
            found.append(usual if value is None else int(str(value)))
        except ValueError:
            raise DataError(
                f"data.{key}: {value!r} names no column of {fields.source}: columns of a CoNLL "
                "file have numbers, '0' for the first, '-1' for the last."
            ) from None
    return found[0], found[1]


def read_conll(
    path: Path, columns: tuple[int, int | None] = (0, -1), notes: Notes | None = None
) -> Tagged:
    """Returns the sentences of a file.

    Columns stand apart by tabs, or else by spaces. Lines that begin with ``#`` before a sentence
    and have no tag are comments; the sentence ``-DOCSTART-`` is left out.

    Args:
      path: the file; maybe compressed.
      columns: the numbers of the columns of words and of tags. None: the file is read for its words
        alone. A line whose last column is a tag is then no comment, nor is a single word where
        the file has no other column.
      notes: where is noted what is left out.

    Raises:
      DataError: it can't be read, or a line lacks one of the columns.
    """
    notes = Notes() if notes is None else notes
    try:
        lines = read_text(path, notes).split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read as text in UTF-8: {error}.") from error
    of_words, of_tags = columns
    rows = [line for line in lines if not line.startswith("#")]
    bare = of_tags is None and all(len(line.split()) < 2 for line in rows)
    found = Tagged([], [], [], str(path), LINE)
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip():
            if words and words[0] == DOCSTART:
                notes.add("left out", f"lines {DOCSTART}", f"{path.name}, line {number - 1}",
                          unit="lines")  # fmt: skip
            elif words:
                found.add(tuple(words), tuple(tags), number - len(words))
            words, tags = [], []
            continue
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        word, tag = _cell(cells, of_words), _cell(cells, -1 if of_tags is None else of_tags)
        a_word = bare and len(cells) == 1
        if not words and line.startswith("#") and not a_word and (tag is None or problem(tag)):
            notes.add("left out", "comments", f"{path.name}, line {number}", unit="lines")
            continue
        if not word or (of_tags is not None and (not tag or len(cells) < 2)):
            has = f"{path}, line {number}: has {len(cells)} columns ({line.strip()[:60]!r})"
            if of_tags is None:
                raise DataError(f"{has}; expected a word in column {of_words}, as in training.")
            raise DataError(
                f"{has}; expected a word in column {of_words} and its tag in column {of_tags}, by "
                "tabs or spaces. data.text_column and data.target choose the columns by number."
            )
        words.append(word)
        tags.append(tag or "")
    return found


def _cell(cells: list[str], column: int) -> str | None:
    return cells[column] if -len(cells) <= column < len(cells) else None


def as_words(path: Path, column: int, notes: Notes | None = None) -> list[tuple[str, ...]]:
    """Returns the words of a file's sentences, a column, whatever stands beside them."""
    return read_conll(path, (column, None), notes).words
