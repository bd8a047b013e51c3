"""A first look at a source of any kind, with the code that opens it for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt import writing
from jdlopt.data import image_decoding, images, named, sound, table_files
from jdlopt.data.damage import Skipped
from jdlopt.data.dataset import Dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import LabelledFiles, read_files
from jdlopt.data.given import open_given
from jdlopt.data.notes import Notes
from jdlopt.data.source import kind_of_source, open_dataset
from jdlopt.errors import DataError, UserError
from jdlopt.starter import files_source, looks, table_source, training
from jdlopt.starter.facts import Choice
from jdlopt.starter.found import Found, facts_of, notes_of, rows_of, skipping, splits_of

LONGEST = 512
"""Tokens of a text that are counted at most, where the source is no table."""


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
        table, damaged = table_source.read(path, fields.target)
        if fields.target is None:
            raise UserError(no_target(fields.source))
        folder = path if path.is_dir() else path.parent
        return table_source.survey(table, fields, folder, _opened, damaged)
    if kind in ("images", "sounds"):
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
        table, fields, Path(), lambda one: open_given(_filled(one), given), False
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
    return columns_of(table_source.read(path)[0], path if path.is_dir() else path.parent)


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
    dataset, share = opened(fields), fields.validation_fraction
    own = splits_of(dataset)
    if "validation" not in own:
        share = training.validation_share(dataset.sizes["train"])
        if share != fields.validation_fraction:
            dataset = opened(dataclasses.replace(fields, validation_fraction=share))
    missing, tokens = 0, 0
    if dataset.nbytes("train") < 1 << 28:
        for values in named.by_name(dataset.read("train").inputs).values():
            if values.ndim == 2 and values.dtype.kind == "f":
                missing += int(np.isnan(values).any(axis=0).sum())
            elif values.ndim == 2 and values.dtype == np.int32:
                tokens = max(tokens, int(np.percentile((values != 0).sum(axis=1), 95)))
    facts = facts_of(dataset, missing=missing, tokens=tokens)
    section = [] if fields.target is None else [Choice("data.target", fields.target)]
    section.append(Choice("data.task", dataset.spec.task))
    section += training.split(facts.rows, own, share)
    return Found(dataset.spec.name, facts, tuple(section), (*rows_of(dataset), *notes_of(dataset)))


# --- folders --------------------------------------------------------------------------------------


def _of_folder(folder: Path, kind: str, fields: DataFields) -> Found:
    """Returns what is known of a folder of images or of sounds."""
    found, fields = _files(folder, kind, fields)
    paths = [path for split in found.paths if split != "test" for path in found.paths[split]]
    size = files_source.image_size if kind == "images" else files_source.sound_size
    choices, keys = size(paths)
    read = images.load if kind == "images" else lambda path: sound.read_sound(path, str(path))
    why = files_source.damaged(paths, read)
    if why:
        fields = dataclasses.replace(fields, on_bad="skip")
    share = training.validation_share(len(paths))
    dataset = open_dataset(dataclasses.replace(fields, **keys, validation_fraction=share))
    facts = facts_of(dataset)
    section = [] if fields.target is None else [Choice("data.target", fields.target)]
    section += [Choice("data.task", dataset.spec.task), *choices]
    if fields.on_bad == "skip":
        section.append(skipping(dataset))
    section += training.split(facts.rows, splits_of(dataset), share)
    return Found(
        folder.resolve().name, facts, tuple(section), (*rows_of(dataset), *notes_of(dataset))
    )


def _files(folder: Path, kind: str, fields: DataFields) -> tuple[LabelledFiles, DataFields]:
    """Returns a folder's files; rows of a ``labels.csv`` that can't be used are left out."""
    of_kind = image_decoding.KIND if kind == "images" else sound.KIND
    try:
        return read_files(folder, of_kind, fields, Skipped()), fields
    except DataError as error:
        skipping = dataclasses.replace(fields, on_bad="skip")
        try:
            return read_files(folder, of_kind, skipping, Skipped()), skipping
        except DataError:
            raise error from None
