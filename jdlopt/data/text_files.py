"""Texts: a folder of files with one subfolder a class, a text a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdlopt.data.csv_text import read_text
from jdlopt.data.damage import Skipped, Unreadable
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import read_files, split_files
from jdlopt.data.notes import Notes
from jdlopt.data.parts import fit_rows
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.text_input import TextInput, fit_texts
from jdlopt.data.walk import FileKind, check_regular

KIND = FileKind("text", frozenset((".txt", ".text")), lambda head: False)
COLUMN = "text"
"""What the column of a table must be called whose texts are predicted for."""


def read_file(path: Path) -> str:
    """Returns a file's text, in UTF-8 or UTF-16.

    Raises:
      DataError: it can't be read as text.
    """
    check_regular(path)
    try:
        return read_text(path, Notes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no UTF-8 text ({error})"
        raise Unreadable(
            f"{path}: can't be read as a text: {reason}. Save it in UTF-8, or leave such texts out "
            "with data.on_bad='skip'.",
            "unreadable text",
        ) from error


@dataclass(frozen=True)
class TextPool:
    """Files of a text each, and the target of each.

    Attributes:
      paths, labels: the files and their targets.
      text: cuts texts into tokens.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    text: TextInput

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        return self.text.encode([read_file(self.paths[index])])[0], self.labels[index]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the tokens of the texts at the indices, or of all of them."""
        chosen = np.arange(len(self)) if indices is None else indices
        texts = [read_file(self.paths[int(index)]) for index in chosen]
        return Arrays(self.text.encode(texts), self.labels[chosen])

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets of the texts at the indices, or of all, without opening any."""
        return self.labels if indices is None else self.labels[indices]


def open_texts(folder: Path, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a folder of texts: ``CLASS/*.txt``, or ``train/CLASS/*.txt`` and ``test/CLASS/*.txt``.

    Or one with a ``labels.csv``: see `jdlopt.data.label_file.read_label_file`. The vocabulary is
    that of the training texts. Test texts are not opened before ``read("test")``.

    Raises:
      DataError: no class folders, a class without texts, or a file that is no text.
    """
    skipped = Skipped()
    found = read_files(folder, KIND, fields, skipped)
    parts, _ = split_files(found, fields, folder, "text", read_file, skipped)
    train = found.paths["train"]
    known = [read_file(train[row]) for row in fit_rows(parts, fields, len(train))]
    text = fit_texts(reading.text, COLUMN, known, reading.vocabulary(COLUMN))
    pools: dict[str, Pool] = {
        split: TextPool(paths, found.targets[split], text) for split, paths in found.paths.items()
    }
    return make_dataset(
        fields=fields,
        name=folder.resolve().name,
        coding=found.coding,
        inputs=InputSpec(text.encode([""]).shape[1:], "int32", text=text),
        pools=pools,
        labels=lambda: found.targets["train"],
        parts=parts,
        reading=reading,
        checked=("train", "validation"),
        skipped=skipped,
        beside=found.beside,
        notes=found.notes,
        origins=found.origins(folder),
    )
