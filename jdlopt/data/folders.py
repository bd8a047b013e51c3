"""Folders of files, with a subfolder a class or a list of targets: each file's target and split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, Int32, Num

from jdlopt.data.damage import Skipped, Unreadable, check_left
from jdlopt.data.fields import DataFields
from jdlopt.data.labelled import BESIDE, names_of, read_labels
from jdlopt.data.split import make_parts
from jdlopt.data.table_files import read_table
from jdlopt.data.targets import Coding
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd


SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


LABELS = "labels.csv"
FILE_COLUMNS = ("file", "filename", "path", "image", "sound")
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class LabelledFiles:
    """The files of each split, and the target of each file.

    Attributes:
      coding: how targets are coded.
      paths: split → its files. ``train`` is always there.
      targets: split → the encoded target of each file.
      beside: the ``group``, ``time`` and ``weight`` of each file of ``train``, where the data
        section names them.
    """

    coding: Coding
    paths: Mapping[str, tuple[Path, ...]]
    targets: Mapping[str, Num[np.ndarray, "files *target"]]
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_files(
    folder: Path, suffixes: Collection[str], what: str, fields: DataFields, skipped: Skipped
) -> LabelledFiles:
    """Returns a folder's files with their targets, from ``labels.csv`` or the folders' names.

    Args:
      folder: the folder.
      suffixes: the endings, in small letters, of the files that count.
      what: names what such a file holds, for messages.
      fields: the data section.
      skipped: where rows of ``labels.csv`` that are left out are counted.

    Raises:
      DataError: neither tells the targets; see `read_label_file` and `read_class_folders`.
    """
    if (folder / LABELS).is_file():
        return read_label_file(folder, suffixes, what, fields, skipped)
    if fields.task not in ("auto", "classification"):
        raise DataError(
            f"{folder}: folders of {what}s give classes; data.task={fields.task!r} needs a file "
            f"{LABELS} in the folder, with a column 'file' and the targets, or an NPZ file."
        )
    return read_class_folders(folder, suffixes, what)


def read_label_file(
    folder: Path, suffixes: Collection[str], what: str, fields: DataFields, skipped: Skipped
) -> LabelledFiles:
    """Returns the files that ``labels.csv`` lists, with their targets.

    A column ``file`` (or one of `FILE_COLUMNS`) holds paths in the folder; ``data.target`` names
    the columns of targets, by default all others. A column ``split`` says which split a file is in;
    without it, paths that all start with ``train/``, ``test/`` … do, if there are such.

    Args:
      folder, suffixes, what, fields, skipped: as in `read_files`.

    Raises:
      DataError: a column is missing, or a file that it lists; a target that can't be used.
    """
    where = str(folder / LABELS)
    table = read_table(
        folder / LABELS,
        skipped if fields.on_bad == "skip" else None,
        remedies=True,
        missing_values=fields.missing_values,
    )
    names = list(table.columns)
    file_column = next((name for name in FILE_COLUMNS if name in names), None)
    if file_column is None:
        raise DataError(
            f"{where}: expected a column 'file' with the path of each {what} in {folder}; found "
            f"the columns {listing(names)}."
        )
    known = {getattr(fields, key) for key in BESIDE} | {file_column, SPLIT_COLUMN, *fields.ignore}
    chosen = names_of(fields.target) or tuple(name for name in names if name not in known)
    for key, name in [("target", each) for each in chosen] + [
        (key, getattr(fields, key)) for key in BESIDE if getattr(fields, key) is not None
    ]:
        if name not in names:
            hint = nearest(name, names) or f" Columns: {listing(names)}."
            raise DataError(f"{where}: data.{key}: there is no column {name!r}.{hint}")
    if not chosen or not len(table):
        raise DataError(f"{where}: holds no {'target' if len(table) else 'row'} beside the files.")
    table = _that_are_there(table, file_column, folder, suffixes, what, fields.on_bad, skipped)
    target = chosen if len(chosen) > 1 else chosen[0]
    table, coding, targets, beside = read_labels(
        table, dataclasses.replace(fields, target=target), where, skipped
    )
    files = table[file_column].astype(str).tolist()
    splits = np.array(_splits_of(table, files, where), dtype=object)
    if "train" not in splits:
        raise DataError(f"{where}: lists no {what} of the split 'train'.")
    rows = {split: np.flatnonzero(splits == split) for split in dict.fromkeys(splits)}
    return LabelledFiles(
        coding,
        {split: tuple(folder / files[row] for row in some) for split, some in rows.items()},
        {split: targets[some] for split, some in rows.items()},
        {key: values[rows["train"]] for key, values in beside.items()},
    )


def _that_are_there(
    table: pd.DataFrame,
    column: str,
    folder: Path,
    suffixes: Collection[str],
    what: str,
    on_bad: str,
    skipped: Skipped,
) -> pd.DataFrame:
    """Returns the rows whose file is there, of a kind that counts, and in the folder."""
    keep = np.ones(len(table), bool)
    for place, (row, value) in enumerate(table[column].items()):
        path = Path(str(value))
        inside = not path.is_absolute() and ".." not in path.parts
        if inside and path.suffix.lower() in suffixes and (folder / path).is_file():
            continue
        reason = f"no such {what}" if inside else f"{what} outside the folder"
        if on_bad != "skip":
            raise DataError(
                f"{folder / LABELS}: row {row}: {reason}: {str(value)!r}; expected the path of a "
                f"file in {folder} ({listing(suffixes)}). data.on_bad='skip' leaves such rows out."
            )
        skipped.add(reason, f"{folder / LABELS}, row {row}", f"{reason}: {str(value)!r}")
        keep[place] = False
    return table[keep]


def _splits_of(table: pd.DataFrame, files: Sequence[str], where: str) -> list[str]:
    """Returns the split of each row."""
    if SPLIT_COLUMN in table.columns:
        found = table[SPLIT_COLUMN].astype(str).tolist()
        for row, name in zip(table.index, found, strict=True):
            if name not in SPLIT_FOLDERS:
                raise DataError(
                    f"{where}: row {row}: the split {name!r} is none of {listing(SPLIT_FOLDERS)}."
                )
    else:
        found = [Path(file).parts[0] for file in files]
        if not all(name in SPLIT_FOLDERS for name in found):
            return ["train"] * len(files)
    return [SPLIT_FOLDERS[name] for name in found]


def read_class_folders(folder: Path, suffixes: Collection[str], what: str) -> LabelledFiles:
    """Returns the files of ``CLASS/*``, or of ``train/CLASS/*`` and ``test/CLASS/*``.

    Files are listed class by class, each sorted by name; classes are sorted.

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
            f"expected at least 2, each with its {what}s, or a file {LABELS}."
        )
    for split, by_class in files.items():
        unknown = [name for name in by_class if name not in classes]
        if unknown:
            raise DataError(
                f"{roots[split]}: classes that train/ does not have: {listing(unknown)}."
            )
    number = {name: index for index, name in enumerate(classes)}
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
