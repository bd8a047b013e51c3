"""Folders of files with one subfolder a class: which file is of which class and split."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, Int32

from jdlopt.data.damage import Skipped, Unreadable, check_left
from jdlopt.data.split import make_parts
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    from jdlopt.data.source import DataFields

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class ClassFolders:
    """The files of each split, and the class of each file.

    Attributes:
      classes: the names of the class folders, sorted; a label is a place in them.
      paths: split → its files, class by class, each sorted by name. ``train`` is always there.
      labels: split → the class of each file.
    """

    classes: tuple[str, ...]
    paths: Mapping[str, tuple[Path, ...]]
    labels: Mapping[str, Int32[np.ndarray, " files"]]


def read_class_folders(folder: Path, suffixes: Collection[str], what: str) -> ClassFolders:
    """Returns the files of ``CLASS/*``, or of ``train/CLASS/*`` and ``test/CLASS/*``.

    Args:
      folder: the folder.
      suffixes: the endings, in small letters, of the files that count.
      what: names what such a file holds, for messages.

    Raises:
      DataError: no class folders, a class without files, a class that ``train`` does not have.
    """
    roots = {
        SPLIT_FOLDERS[entry.name]: entry
        for entry in _subfolders(folder)
        if entry.name in SPLIT_FOLDERS
    }
    if "train" not in roots:
        if roots:
            raise DataError(f"{folder}: has a folder for test or validation but none called train.")
        roots = {"train": folder}
    files = {split: _class_files(root, suffixes, what) for split, root in roots.items()}
    classes = tuple(files["train"])
    if len(classes) < 2:
        raise DataError(
            f"{roots['train']}: found {len(classes)} class folders ({listing(classes) or 'none'}), "
            f"expected at least 2, each with its {what}s."
        )
    for split, by_class in files.items():
        unknown = [name for name in by_class if name not in classes]
        if unknown:
            raise DataError(
                f"{roots[split]}: classes that train/ does not have: {listing(unknown)}."
            )
    number = {name: index for index, name in enumerate(classes)}
    return ClassFolders(
        classes,
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
    )


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Returns the files with these endings that lie directly in a folder, sorted by name."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    )


def holds_files(folder: Path, suffixes: Collection[str]) -> bool:
    """Returns whether a file with one of these endings lies in a folder, however deep."""
    return any(
        os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
        for _, _, names in os.walk(folder)
        for name in names
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
    found: ClassFolders,
    fields: DataFields,
    folder: Path,
    what: str,
    read: Callable[[Path], object],
) -> tuple[dict[str, tuple[str, np.ndarray | None]], Skipped, list[Path]]:
    """Returns which files each split is made of, what was skipped, and the files of all but test.

    With ``data.on_bad='skip'`` every training and validation file is read once, and those that
    can't be are left out. No test file is opened.

    Args:
      found: the files.
      fields: the data section.
      folder: names the source, for messages.
      what: names what such a file holds, for messages.
      read: raises `Unreadable` for a file that can't be read.

    Raises:
      DataError: a split, or a class of the training split, has no file left.
    """
    labels = found.labels["train"]
    parts = make_parts(found.paths, fields, lambda: labels, fields.source, found.classes)
    skipped = Skipped()
    if fields.on_bad == "skip":
        for split in ("train", "validation"):
            name, rows = parts[split]
            rows = readable(found.paths[name], rows, read, skipped)
            check_left(rows, split, str(folder), skipped)
            parts[split] = (name, rows)
        check_classes_left(labels[parts["train"][1]], found.classes, str(folder), skipped, what)
    seen = [
        path
        for split, (name, rows) in parts.items()
        if split != "test"
        for path in np.array(found.paths[name], dtype=object)[slice(None) if rows is None else rows]
    ]
    return parts, skipped, seen


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


def _subfolders(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: the folder can't be read: {error.strerror}.") from error
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _class_files(root: Path, suffixes: Collection[str], what: str) -> dict[str, list[Path]]:
    by_class = {entry.name: files_in(entry, suffixes) for entry in _subfolders(root)}
    for name, paths in by_class.items():
        if not paths:
            raise DataError(
                f"{root / name}: the class folder holds no {what} ({listing(suffixes)}). "
                f"Remove it, or put the {what}s directly in it."
            )
    return by_class
