"""Tables: a CSV or Parquet file with a target column, checked whole when it is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jdlopt.data import columns, labelled, mixed, table_notes
from jdlopt.data.damage import Skipped, check_left
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.named import TABLE
from jdlopt.data.notes import Notes
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import fit_rows, make_parts
from jdlopt.data.table_files import (
    WORDS_ARE_MISSING,
    check_header,
    endings,
    index_as_columns,
    read_table,
    without_words,
)
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd


def open_table(path: Path, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a CSV or Parquet file as a dataset of float32 features, of texts, or of both and files.

    The whole file is parsed and checked for values that can't be used. Its target column (and
    those of group, time and weight) places each row in a split; what the training rows hold then
    decides which columns are numbers and which are categories, and what these are. A category's
    code is its place among them, from 1 on; 0 stands for one that no training row has. Columns of
    texts, and of paths of images and sounds, are inputs of their own: see `jdlopt.data.mixed`.

    Args:
      path: the file.
      fields: the data section: ``target``, ``label_delimiter``, ``ignore``, ``task``, ``on_bad``,
        ``group``, ``time``, ``weight``, ``columns``, ``text_column`` and the split's keys.
      reading: what becomes of missing features, how categories are coded and texts cut up.

    Raises:
      DataError: the file, its target or one of its columns can't be used.
    """
    skipped, notes = Skipped(), Notes()
    skip = fields.on_bad == "skip"
    table = read_table(
        path,
        skipped if skip else None,
        fields.text_column,
        as_text=(*fields.categorical, *(n for n, k in fields.columns.items() if k != "number")),
        remedies=True,
        missing_values=fields.missing_values,
        decimal=fields.decimal,
        notes=notes,
    )
    name = Path(path.stem).stem if endings(path)[1] else path.stem
    folder = path if path.is_dir() else path.parent
    with _words_told(notes):
        return _dataset(table, fields, reading, str(path), name, folder, skipped, notes)


def open_frame(frame: pd.DataFrame, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a DataFrame as a table read from a file; an index with a name is a column.

    Args:
      frame: the table; it is not changed.
      fields: the data section, as `open_table` takes it.
      reading: as in `open_table`.

    Raises:
      DataError: its target or one of its columns can't be used, or two have one name.
    """
    import pandas as pd

    notes = Notes()
    check_header([str(name) for name in frame.columns], Path("data"))
    table = index_as_columns(frame, "data", notes)
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    table.index = pd.Index(np.arange(1, len(table) + 1))
    if fields.missing_values:
        table = without_words(table, fields.missing_values, (), fields.text_column, notes)
    with _words_told(notes):
        return _dataset(table, fields, reading, "data", "data", Path(), Skipped(), notes)


@contextlib.contextmanager
def _words_told(notes: Notes) -> Iterator[None]:
    """Says with an error about missing values which words were taken for them."""
    try:
        yield
    except DataError as error:
        words = [note for note in notes if note.what == WORDS_ARE_MISSING]
        if words and "missing value" in str(error):
            raise DataError("\n".join((str(error), *map(str, words)))) from error
        raise


def _dataset(
    table: pd.DataFrame,
    fields: DataFields,
    reading: Reading,
    where: str,
    name: str,
    folder: Path,
    skipped: Skipped,
    notes: Notes,
) -> Dataset:
    fields = labelled.with_targets(fields, list(table.columns))
    features = _feature_names(Path(where), list(table.columns), fields)
    if len(table) == 0:
        left = f": {skipped}" if skipped.counts else ""
        raise DataError(f"{where}: is empty: it has a header but no rows{left}.")
    table, coding, targets, beside = labelled.read_labels(table, fields, where, skipped, notes)
    parts: mixed.Parts = make_parts({"train": targets}, fields, coding, lambda: targets, beside)
    rows = fit_rows(parts, fields, len(table))
    if fields.text_column is not None:
        kinds = mixed.Kinds((), {}, {fields.text_column: "text"})
    else:
        kinds = mixed.kinds_of(table, features, rows, fields, folder)
    inputs: dict[str, InputSpec] = {}
    pools: dict[str, Pool] = {}
    if kinds.table:
        inputs[TABLE], matrix, parts = _features(
            table, kinds, parts, fields, where, reading, skipped, notes
        )
        pools[TABLE] = ArrayPool(len(table), partial(Arrays, matrix, targets))
    checked: tuple[str, ...] = ("train", "validation", "test")
    if kinds.apart:
        found, held, parts = mixed.open_apart(
            table, kinds.apart, targets, parts, fields, reading, folder, where, skipped
        )
        inputs, pools = {**inputs, **found}, {**pools, **held}
        # what a file of the test split holds is not known before it is asked for
        checked = checked[:2] if set(kinds.apart.values()) & set(mixed.FILES) else checked
    seen, pool = mixed.together(inputs, pools, targets)
    return make_dataset(
        fields=fields,
        name=name,
        coding=coding,
        inputs=seen,
        pools={"train": pool},
        labels=lambda: targets,
        parts=parts,
        reading=reading,
        checked=checked,
        skipped=skipped,
        beside=beside,
        notes=(*notes, *kinds.notes),
    )


def _features(
    table: pd.DataFrame,
    kinds: mixed.Kinds,
    parts: mixed.Parts,
    fields: DataFields,
    where: str,
    reading: Reading,
    skipped: Skipped,
    notes: Notes,
) -> tuple[InputSpec, np.ndarray, mixed.Parts]:
    """Returns what is known of the features, themselves, and the splits without damaged rows."""
    rows = fit_rows(parts, fields, len(table))
    read = {
        name: columns.read_column(table[name], rows, kinds.declared.get(name), fields.decimal)
        for name in kinds.table
    }
    ignored = () if reading.missing == "refuse" else (columns.MISSING,)
    damaged = None
    if fields.on_bad == "skip":
        ignored = (*ignored, columns.NOT_A_NUMBER, columns.INFINITE)
        damaged = _skip_damaged(table, read, where, skipped)
        parts = {
            split: (pool, indices[~damaged[indices]])
            for split, (pool, indices) in parts.items()
            if indices is not None
        }
        for split, (_, indices) in parts.items():
            check_left(indices, split, where, skipped)
        rows = fit_rows(parts, fields, len(table))
    columns.raise_problems(read, where, ignored, damaged)
    categories: dict[str, tuple[str, ...]] = {}
    for name, column in read.items():
        if column.texts is not None:
            from jdlopt.data.preprocess import encode

            categories[name] = encode.categories(column.texts[rows])
    offsets = tuple(columns.offset_in(column, rows) for column in read.values())
    offsets = offsets if any(offsets) else ()
    table_notes.of_columns(notes, table, read, kinds.declared, rows, offsets)
    if reading.hash_buckets is None:
        table_notes.of_categories(notes, read, categories, parts)
    spec = InputSpec(
        (len(kinds.table),),
        "float32",
        kinds.table,
        offsets=offsets,
        notations=columns.notations_of(read, fields.decimal),
        categories=categories,
    )
    return spec, columns.as_matrix(read, categories, reading.hash_buckets, offsets), parts


def _skip_damaged(
    table: pd.DataFrame, read: Mapping[str, columns.Column], where: str, skipped: Skipped
) -> np.ndarray:
    """Returns which rows hold damage, each counted for its first."""
    damaged = np.zeros(len(table), bool)
    for name, column in read.items():
        for problem in column.problems:
            if problem.kind not in (columns.NOT_A_NUMBER, columns.INFINITE):
                continue
            for row in np.flatnonzero(problem.cells & ~damaged):
                what = f"{problem.kind}: {columns.shown(table[name], row)} in column {name!r}"
                skipped.add(problem.kind, f"{where}, row {table.index[row]}", what)
            damaged |= problem.cells
    return damaged


def _feature_names(path: Path, names: list[str], fields: DataFields) -> tuple[str, ...]:
    """Returns the feature columns, after checking every column that the data section names."""
    targets = labelled.names_of(fields.target)
    if not targets:
        raise DataError(
            f"{path}: data.target is not set; name the column to predict. "
            f"Columns: {listing(names)}."
        )
    used = [("target", name) for name in targets] + [
        (key, getattr(fields, key))
        for key in (*labelled.BESIDE, "text_column")
        if getattr(fields, key) is not None
    ]
    many = [
        (key, name) for key in ("ignore", "categorical", "columns") for name in getattr(fields, key)
    ]
    named = [*used, *many]
    for key, name in named:
        if name not in names:
            hint = nearest(name, names) or f" Columns: {listing(names)}."
            raise DataError(f"{path}: data.{key}: there is no column {name!r}.{hint}")
    twice = [name for name in fields.columns if name in {one for _, one in used}]
    if twice or (fields.columns and fields.text_column is not None):
        name = twice[0] if twice else fields.text_column
        key = next(key for key, one in used if one == name)
        raise DataError(
            f"{path}: data.columns: {name!r} is data.{key}, which leaves nothing to say of it."
            if twice
            else f"{path}: data.text_column makes {name!r} the only input. Leave it out, and say "
            f"data.columns={{{name!r}: 'text', …}}."
        )
    if fields.text_column is not None:
        twice = [key for key, name in used if name == fields.text_column]
        if len(twice) > 1:
            raise DataError(f"{path}: data.text_column: {fields.text_column!r} is data.{twice[0]}.")
        return (fields.text_column,)
    taken = {*(name for _, name in used), *fields.ignore}
    features = tuple(name for name in names if name not in taken)
    if not features:
        raise DataError(f"{path}: no feature column is left beside the target {fields.target!r}.")
    return features
