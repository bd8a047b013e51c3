"""A ``labels.csv`` in a folder of files: each file's targets and split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jdlopt.data.coding import Coding
from jdlopt.data.damage import Skipped
from jdlopt.data.fields import DataFields
from jdlopt.data.key_split import BY_PATH
from jdlopt.data.labelled import beside_named, check_named, names_of, read_labels, with_targets
from jdlopt.data.missing_words import words_told
from jdlopt.data.split import SPLIT_NAMES, split_named
from jdlopt.data.table_files import read_table
from jdlopt.data.walk import FileKind, PassedOver, files_under
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd

LABELS = "labels.csv"
FILE_COLUMNS = ("file", "filename", "path", "image", "sound")
SPLIT_COLUMN = "split"


class Listed(NamedTuple):
    """What a list of labels says.

    Attributes:
      coding: how targets are coded.
      paths: of the files.
      targets: the encoded target of each.
      splits: the split of each.
      beside: the ``group``, ``time`` and ``weight`` of each, where the data section names them.
    """

    coding: Coding
    paths: list[Path]
    targets: np.ndarray
    splits: np.ndarray
    beside: dict[str, np.ndarray]


def read_label_file(
    folder: Path, kind: FileKind, fields: DataFields, skipped: Skipped, passed: PassedOver
) -> Listed:
    """Returns the files that ``labels.csv`` lists, with their targets.

    A column ``file`` (or one of `FILE_COLUMNS`) holds paths in the folder; ``data.target`` names
    the columns of targets, by default all others. A column ``split`` says which split a file is in;
    without it, paths that all start with ``train/``, ``test/`` … do, if there are such.

    Args:
      folder, kind, fields, skipped: as in `jdlopt.data.folders.read_files`.
      passed: where files that it does not list are counted.

    Raises:
      DataError: a column is missing, or a file that it lists; a target that can't be used.
    """
    with words_told(passed.notes):
        return _read(folder, kind, fields, skipped, passed)


def _read(
    folder: Path, kind: FileKind, fields: DataFields, skipped: Skipped, passed: PassedOver
) -> Listed:
    where, what = str(folder / LABELS), kind.name
    table = read_table(
        folder / LABELS,
        skipped if fields.on_bad == "skip" else None,
        as_text=() if fields.split_by is None else (fields.split_by,),
        remedies=True,
        missing_values=fields.missing_values,
        decimal=fields.decimal,
        notes=passed.notes,
        strict=None,
    )
    names = list(table.columns)
    file_column = next((name for name in FILE_COLUMNS if name in names), None)
    if file_column is None:
        raise DataError(
            f"{where}: expected a column 'file' with the path of each {what} in {folder}; found "
            f"the columns {listing(names)}."
        )
    fields = with_targets(fields, names)
    if fields.split_by == BY_PATH and BY_PATH not in names:
        fields = dataclasses.replace(fields, split_by=file_column)
    aside = beside_named(fields)
    known = {*(name for _, name in aside), file_column, SPLIT_COLUMN, *fields.unused}
    chosen = names_of(fields.target) or tuple(name for name in names if name not in known)
    check_named(where, [("target", name) for name in chosen] + aside, names)
    if not chosen or not len(table):
        raise DataError(f"{where}: holds no {'target' if len(table) else 'row'} beside the files.")
    known_files = set(table[file_column].astype(str))
    table = _that_are_there(table, file_column, folder, kind, fields.on_bad, skipped)
    target = chosen if len(chosen) > 1 else chosen[0]
    table, coding, targets, beside = read_labels(
        table, dataclasses.replace(fields, target=target), where, skipped, passed.notes
    )
    files = table[file_column].astype(str).tolist()
    splits = np.array(splits_of(table, files, where), dtype=object)
    if "train" not in splits:
        raise DataError(f"{where}: lists no {what} of the split 'train'.")
    listed = {folder / name for name in known_files}
    for path in files_under(folder, kind, passed, but=(folder / LABELS,)):
        if path not in listed:
            passed.file(f"{what}s that {LABELS} does not list", path)
    return Listed(coding, [folder / name for name in files], targets, splits, beside)


def _that_are_there(
    table: pd.DataFrame,
    column: str,
    folder: Path,
    kind: FileKind,
    on_bad: str,
    skipped: Skipped,
) -> pd.DataFrame:
    """Returns the rows whose file is there, of a kind that counts, and in the folder."""
    keep, what = np.ones(len(table), bool), kind.name
    for place, (row, value) in enumerate(table[column].items()):
        path = Path(str(value))
        inside = not path.is_absolute() and ".." not in path.parts
        if inside and (folder / path).is_file() and kind.holds(folder / path):
            continue
        reason = f"no such {what}" if inside else f"{what} outside the folder"
        if on_bad != "skip":
            raise DataError(
                f"{folder / LABELS}: row {row}: {reason}: {str(value)!r}; expected the path of a "
                f"file in {folder} ({listing(kind.suffixes)}). data.on_bad='skip' leaves such rows "
                "out."
            )
        skipped.add(reason, f"{folder / LABELS}, row {row}", f"{reason}: {str(value)!r}")
        keep[place] = False
    return table[keep]


def splits_of(table: pd.DataFrame, files: Sequence[str], where: str) -> list[str]:
    """Returns the split of each row: as a column `SPLIT_COLUMN` says it, or paths that begin so."""
    if SPLIT_COLUMN in table.columns:
        named = table[SPLIT_COLUMN].astype(str).tolist()
        for row, name in zip(table.index, named, strict=True):
            if split_named(name) is None:
                raise DataError(
                    f"{where}: row {row}: the split {name!r} is none of {listing(SPLIT_NAMES)}."
                )
    else:
        named = [Path(file).parts[0] for file in files]
    found = [split_named(name) for name in named]
    return ["train" if split is None or None in found else split for split in found]
