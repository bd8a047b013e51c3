"""A first look at a source of any kind, with the code that opens it for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdlopt import writing
from jdlopt.data import image_decoding, images, named, sound, table_files, text_files
from jdlopt.data.damage import Skipped
from jdlopt.data.dataset import Dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import LabelledFiles, read_files
from jdlopt.data.given import open_given
from jdlopt.data.notes import Notes
from jdlopt.data.source import kind_of_source, open_dataset
from jdlopt.data.walk import FileKind
from jdlopt.errors import DataError, UserError
from jdlopt.starter import files_source, looks, table_reading, table_source, training
from jdlopt.starter.facts import Choice, Facts
from jdlopt.starter.found import Found, facts_of, notes_of, open_with, repairs, rows_of, splits_of

LONGEST = 512
"""Tokens of a text that are counted at most, where the source is no table."""


class Folder(NamedTuple):
    """A kind of folders.

    Attributes:
      files: the files that count.
      read: reads one, and raises `Unreadable` for damage.
      size: the keys that bring files to one size; None where they have none.
    """

    files: FileKind
    read: Callable[[Path], object]
    size: Callable[[list[Path]], files_source.Sized] | None = None


FOLDERS = {
    "images": Folder(image_decoding.KIND, images.load, files_source.image_size),
    "sounds": Folder(
        sound.KIND, lambda path: sound.read_sound(path, str(path)), files_source.sound_size
    ),
    "texts": Folder(text_files.KIND, text_files.read_file),
}


def survey(fields: DataFields) -> Found:
    """Returns what is known of a source.

    Args:
      fields: ``source``, and maybe ``target`` and ``task``.

    Raises:
      UserError: there is no such source, or it can't be trained on; says what to do about it.
    """
    kind = kind_of_source(fields)
    if kind == "table":
        path = writing.expanded(fields.source)
        if fields.target is None:
            raise UserError(no_target(fields.source))
        target = fields.target if isinstance(fields.target, tuple) else (fields.target,)
        found = table_reading.read(path, target)
        folder = path if path.is_dir() else path.parent
        return table_source.survey(found, fields, folder, _opened)
    if kind in FOLDERS:
        return _of_folder(writing.expanded(fields.source), kind, fields)
    return _of_dataset(_opened, _long(fields))


def survey_given(given: Any, fields: DataFields) -> Found:
    """Returns what is known of data that a program gives.

    Args:
      given: what `jdlopt.fit` takes as ``data``.
      fields: ``target`` of a DataFrame, and maybe ``task``.

    Raises:
      UserError: as `survey`.
    """
    fields = dataclasses.replace(fields, source="data")
    if not (hasattr(given, "columns") and hasattr(given, "iloc")):
        return _of_dataset(lambda one: open_given(_filled(one), given), fields)
    table = table_files.index_as_columns(given, "data", Notes())
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    if fields.target is None:
        told = [f"  {row['column']!r}: {row['what there is']}" for row in columns_of(table)]
        raise UserError("\n".join(["data: which column is to predict, target='COLUMN'?", *told]))
    return table_source.survey(
        table_reading.Table(table), fields, Path(), lambda one: open_given(_filled(one), given)
    )


def no_target(source: str) -> str:
    """Returns what there is to say where a table's target is not named."""
    return (
        f"{source}: which column is to predict? Name it, --target=COLUMN; several, --target=A,B. "
        "Nothing is guessed."
    )


def columns(source: str) -> list[dict[str, str | int]]:
    """Returns what each column of a table holds, and what it would mean to predict it.

    Empty where the source is no table, or knows its target itself.

    Raises:
      UserError: there is no such source, or it can't be read.
    """
    fields = DataFields(source)
    if kind_of_source(fields) != "table":
        return []
    path = writing.expanded(source)
    return columns_of(table_reading.read(path).frame, path if path.is_dir() else path.parent)


def columns_of(table: Any, folder: Path | None = None) -> list[dict[str, str | int]]:
    """Returns what `columns` does, of a table that was read."""
    found = looks.look_at(table, DataFields(""), folder or Path())
    return looks.rows_of(found)


def _filled(fields: DataFields) -> DataFields:
    """Returns a data section that takes missing values: what fills them in is chosen later."""
    return dataclasses.replace(
        fields, preprocess=dataclasses.replace(fields.preprocess, missing="median")
    )


def _opened(fields: DataFields) -> Dataset:
    return open_dataset(_filled(fields))


def _long(fields: DataFields) -> DataFields:
    return dataclasses.replace(fields, text=dataclasses.replace(fields.text, max_tokens=LONGEST))


def _of_dataset(opened: Callable[[DataFields], Dataset], fields: DataFields) -> Found:
    """Returns what is known of a source that says itself what its targets are."""
    share = fields.validation_fraction
    dataset, fields = open_with(fields, opened)
    if "validation" not in splits_of(dataset):
        share = training.validation_share(dataset.sizes["train"])
        if share != fields.validation_fraction:
            fields = dataclasses.replace(fields, validation_fraction=share)
            dataset, fields = open_with(fields, opened)
    missing, tokens = 0, 0
    if dataset.nbytes("train") < 1 << 28:
        for values in named.by_name(dataset.read("train").inputs).values():
            if values.ndim == 2 and values.dtype.kind == "f":
                missing += int(np.isnan(values).any(axis=0).sum())
            elif values.ndim == 2 and values.dtype == np.int32:
                tokens = max(tokens, int(np.percentile((values != 0).sum(axis=1), 95)))
    facts = facts_of(dataset, missing=missing, tokens=tokens)
    return _found(dataset.spec.name, dataset, fields, facts, share)


def _found(
    name: str,
    dataset: Dataset,
    fields: DataFields,
    facts: Facts,
    share: float,
    sizes: Sequence[Choice] = (),
) -> Found:
    """Returns what is known of an opened source that is no table.

    Args:
      name: what it is called.
      dataset: opened.
      fields: what opened it.
      facts: of it.
      share: of validation.
      sizes: the choices that bring its files to one size.
    """
    section = [] if fields.target is None else [Choice("data.target", fields.target)]
    section += [Choice("data.task", dataset.spec.task), *sizes, *repairs(dataset, fields)]
    section += training.split(splits_of(dataset), share)
    return Found(name, facts, tuple(section), (*rows_of(dataset), *notes_of(dataset)))


# --- folders --------------------------------------------------------------------------------------


def _of_folder(folder: Path, kind: str, fields: DataFields) -> Found:
    """Returns what is known of a folder of images or of sounds."""
    found, fields = _files(folder, kind, fields)
    paths = [path for split in found.paths if split != "test" for path in found.paths[split]]
    size, read = FOLDERS[kind].size, FOLDERS[kind].read
    choices, keys = ([], {}) if size is None else size(paths)
    why = files_source.damaged(paths, read)
    if why:
        fields = dataclasses.replace(fields, on_bad="skip")
    share = training.validation_share(len(paths))
    fields = dataclasses.replace(fields, **keys, validation_fraction=share)
    dataset, fields = open_with(fields, open_dataset)
    tokens = files_source.tokens(paths) if kind == "texts" else 0
    facts = facts_of(dataset, tokens=tokens)
    return _found(folder.resolve().name, dataset, fields, facts, share, choices)


def _files(folder: Path, kind: str, fields: DataFields) -> tuple[LabelledFiles, DataFields]:
    """Returns a folder's files; rows of a ``labels.csv`` that can't be used are left out."""
    of_kind = FOLDERS[kind].files
    try:
        return read_files(folder, of_kind, fields, Skipped()), fields
    except DataError as error:
        skipping = dataclasses.replace(fields, on_bad="skip")
        try:
            return read_files(folder, of_kind, skipping, Skipped()), skipping
        except DataError:
            raise error from None
