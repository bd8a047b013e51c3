"""Folders of files, with a subfolder a class or a list of targets: each file's target and split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, Num

from jdlopt.data.class_folders import read_class_folders
from jdlopt.data.coding import Coding
from jdlopt.data.damage import Skipped, Unreadable, check_left
from jdlopt.data.fields import DataFields
from jdlopt.data.label_file import LABELS, read_label_file
from jdlopt.data.notes import Note
from jdlopt.data.parts import make_parts
from jdlopt.data.walk import FileKind, PassedOver
from jdlopt.errors import DataError, listing


@dataclass(frozen=True)
class LabelledFiles:
    """The files of each split, and the target of each file.

    Attributes:
      coding: how targets are coded.
      paths: split → its files. ``train`` is always there.
      targets: split → the encoded target of each file.
      beside: the ``group``, ``time`` and ``weight`` of each file of ``train``, where the data
        section names them.
      notes: the files that are not used, and what was guessed of those that are.
    """

    coding: Coding
    paths: Mapping[str, tuple[Path, ...]]
    targets: Mapping[str, Num[np.ndarray, "files *target"]]
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def origins(self, folder: Path) -> dict[str, dict[str, np.ndarray]]:
        """Returns the paths in a folder of each split's files, as `Dataset.origins`."""
        return {split: {"file": _within(folder, paths)} for split, paths in self.paths.items()}


def _within(folder: Path, paths: Sequence[Path]) -> np.ndarray:
    start = len((folder / "x").as_posix()) - 1  # `relative_to` takes seconds for a million
    return np.array([path.as_posix()[start:] for path in paths], object)


def read_files(folder: Path, kind: FileKind, fields: DataFields, skipped: Skipped) -> LabelledFiles:
    """Returns a folder's files with their targets, from ``labels.csv`` or the folders' names.

    Args:
      folder: the folder.
      kind: the files that count.
      fields: the data section.
      skipped: where rows of ``labels.csv`` that are left out are counted.

    Raises:
      DataError: neither tells the targets; see `jdlopt.data.class_folders.read_class_folders` and
        `jdlopt.data.label_file.read_label_file`.
    """
    passed = PassedOver()
    if (folder / LABELS).is_file():
        listed = read_label_file(folder, kind, fields, skipped, passed)
        rows = {
            split: np.flatnonzero(listed.splits == split)
            for split in dict.fromkeys(listed.splits.tolist())
        }
        return LabelledFiles(
            listed.coding,
            {split: tuple(listed.paths[row] for row in some) for split, some in rows.items()},
            {split: listed.targets[some] for split, some in rows.items()},
            {key: values[rows["train"]] for key, values in listed.beside.items()},
            tuple(passed.notes),
        )
    if fields.task not in ("auto", "classification"):
        raise DataError(
            f"{folder}: folders of {kind.name}s give classes; data.task={fields.task!r} needs a "
            f"file {LABELS} in the folder, with a column 'file' and the targets, or an NPZ file."
        )
    classes, files = read_class_folders(folder, kind, passed)
    number = {name: index for index, name in enumerate(classes)}
    beside = {}
    if fields.split_by is not None:
        trained = [path for paths in files["train"].values() for path in paths]
        beside["split_by"] = _within(folder, trained)
    return LabelledFiles(
        Coding("classification", classes),
        {
            split: tuple(path for paths in by_class.values() for path in paths)
            for split, by_class in files.items()
        },
        {
            split: np.array(
                [number[name] for name, paths in by_class.items() for _ in paths], dtype=np.int32
            )
            for split, by_class in files.items()
        },
        beside,
        tuple(passed.notes),
    )


def readable(
    paths: Sequence[Path],
    rows: Int[np.ndarray, " some"] | None,
    read: Callable[[Path], object],
    skipped: Skipped,
) -> Int[np.ndarray, " some"]:
    """Returns the rows whose file can be read; the others are counted as skipped.

    Args:
      paths: files.
      rows: the places in ``paths`` to look at; None looks at all.
      read: raises `Unreadable` for a file that can't be read.
      skipped: where the others are counted.
    """
    kept = []
    for row in range(len(paths)) if rows is None else rows:
        try:
            read(paths[row])
        except Unreadable as error:
            skipped.add(error.reason, str(paths[row]))
        else:
            kept.append(row)
    return np.array(kept, dtype=np.intp)


def split_files(
    found: LabelledFiles,
    fields: DataFields,
    folder: Path,
    what: str,
    read: Callable[[Path], object],
    skipped: Skipped,
) -> tuple[dict[str, tuple[str, np.ndarray | None]], list[Path]]:
    """Returns which files each split is made of, and the files of all but test.

    With ``data.on_bad='skip'`` every training and validation file is read once, and those that
    can't be are left out. No test file is opened.

    Args:
      found: the files.
      fields: the data section.
      folder: names the source, for messages.
      what: names what such a file holds, for messages.
      read: raises `Unreadable` for a file that can't be read.
      skipped: where files that are left out are counted.

    Raises:
      DataError: a split, or a class of the training split, has no file left.
    """
    targets, coding = found.targets["train"], found.coding
    parts = make_parts(found.paths, fields, coding, lambda: targets, found.beside)
    if fields.on_bad == "skip":
        for split in ("train", "validation"):
            name, rows = parts[split]
            rows = readable(found.paths[name], rows, read, skipped)
            check_left(rows, split, str(folder), skipped)
            parts[split] = (name, rows)
        if coding.task == "classification":
            left, names = targets[parts["train"][1]], coding.class_names
            check_classes_left(left, names, str(folder), skipped, what)
    seen = [
        path
        for split, (name, rows) in parts.items()
        if split != "test"
        for path in np.array(found.paths[name], dtype=object)[slice(None) if rows is None else rows]
    ]
    return parts, seen


def check_classes_left(
    labels: Int32[np.ndarray, " some"],
    classes: Sequence[str],
    where: str,
    skipped: Skipped,
    what: str,
) -> None:
    """Raises a `DataError` if a class has no training file left after some were skipped."""
    lost = [name for number, name in enumerate(classes) if number not in labels]
    if lost:
        raise DataError(f"{where}: no training {what} is left of {listing(lost)}: {skipped}.")
