"""Tables: a CSV or Parquet file with a target column, checked whole when it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from jdlopt.config.tree import nested_columns
from jdlopt.data import (
    columns,
    documents,
    labelled,
    mixed,
    next_tokens,
    pair_coding,
    presence,
    table_notes,
    tagged,
    tags,
    target_texts,
)
from jdlopt.data.damage import Skipped, check_left
from jdlopt.data.dataset import PLAIN, Dataset, Reading, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.missing_words import without_words, words_told
from jdlopt.data.named import PRESENT, TABLE
from jdlopt.data.notes import Note, Notes
from jdlopt.data.parts import fit_rows
from jdlopt.data.pools import ArrayPool, Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import SPLITS
from jdlopt.data.table_files import (
    check_header,
    endings,
    index_as_columns,
    joined_parts,
    read_table,
)
from jdlopt.data.table_splits import (
    SplitTable,
    check_columns,
    find_tables,
    from_one_folder,
    placed_rows,
)
from jdlopt.errors import DataError, listing

if TYPE_CHECKING:
    import pandas as pd


OF_TEXTS = {tags.TASK: tagged.of_tables, next_tokens.TASK: documents.of_tables}
"""The tasks that take texts alone of a table, and what opens them."""


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
    paths = find_tables(path, fields, notes)
    as_text = (*fields.categorical, *(n for n, k in fields.columns.items() if k != "number"))
    as_text = (*as_text, *([] if fields.split_by is None else [fields.split_by]))
    as_text = (*as_text, *(labelled.names_of(fields.target) if writes_texts(fields) else ()))
    tables: dict[str, SplitTable] = {}
    for split, files in paths.items():
        of_this = notes if len(paths) == 1 else Notes()
        table = _read(files, fields, as_text, skipped, of_this)
        if split == "train":  # what is text there is text in the others, such as "007"
            texts = [n for n in table.columns if table[n].dtype.kind == "O" or _is_text(table[n])]
            as_text = (*as_text, *texts)
        if of_this is not notes:
            notes.extend(_of_file(note, files[0].name) for note in of_this)
        folder = files[0] if files[0].is_dir() else files[0].parent
        tables[split] = SplitTable(table, str(files[0]), folder)
    name = Path(path.stem).stem if endings(path)[1] else path.stem
    with words_told(notes):
        return _dataset(tables, fields, reading, name, skipped, notes)


def writes_texts(fields: DataFields) -> bool:
    """Returns whether a data section's targets are texts."""
    return fields.task == target_texts.TASK


def _of_file(note: Note, name: str) -> Note:
    """Returns a note whose places say which file they lie in."""
    places = (f"{name}, {one}" if one and not one.startswith("and ") else one or name
              for one in note.places or ("",))  # fmt: skip
    return dataclasses.replace(note, places=tuple(places))


def _is_text(column: pd.Series) -> bool:
    return str(column.dtype) == "str" or column.dtype.kind == "U"


def _read(
    files: Sequence[Path],
    fields: DataFields,
    as_text: Sequence[str],
    skipped: Skipped,
    notes: Notes,
) -> pd.DataFrame:
    """Returns the table of a split, maybe in parts; its index counts the rows from 1."""
    named_aside = [name for _, name in labelled.beside_named(fields)]
    read = [
        read_table(
            path,
            skipped if fields.on_bad == "skip" else None,
            fields.text_column,
            as_text=as_text,
            remedies=True,
            missing_values=fields.missing_values,
            decimal=fields.decimal,
            notes=notes,
            strict=(*labelled.names_of(fields.target), *named_aside),
        )
        for path in files
    ]
    return joined_parts(read, files[0].parent, notes)


def open_frame(frame: pd.DataFrame, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens a DataFrame as a table read from a file; an index with a name is a column.

    Args:
      frame: the table; it is not changed.
      fields: the data section, as `open_table` takes it.
      reading: as in `open_table`.

    Raises:
      DataError: its target or one of its columns can't be used, or two have one name.
    """
    return open_frames({"train": frame}, fields, reading)


def open_frames(
    frames: Mapping[str, pd.DataFrame],
    fields: DataFields,
    reading: Reading = PLAIN,
    where: str = "data",
) -> Dataset:
    """Opens a DataFrame a split as tables of their own files; see `open_frame`.

    Args:
      frames: by the name of their split, ``train`` among them.
      fields, reading: as in `open_frame`.
      where: names the only one, for messages.

    Raises:
      DataError: as in `open_frame`, or there is no such split, or none to train on.
    """
    unknown = [split for split in frames if split not in SPLITS]
    if unknown or "train" not in frames:
        raise DataError(
            f"data: DataFrames are given by split, 'train' among them; found {listing(frames)}."
        )
    notes = Notes()
    tables = {
        split: _as_table(frames[split], split if len(frames) > 1 else where, fields, notes)
        for split in ("train", "validation", "test")
        if split in frames
    }
    with words_told(notes):
        name = Path(where).stem
        return _dataset(tables, fields, reading, name, Skipped(), notes)


def _as_table(frame: pd.DataFrame, where: str, fields: DataFields, notes: Notes) -> SplitTable:
    import pandas as pd

    check_header([str(name) for name in frame.columns], Path(where))
    table = index_as_columns(frame, where, notes)
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    table.index = pd.Index(np.arange(1, len(table) + 1))
    if fields.missing_values:
        table = without_words(table, fields.missing_values, (), fields.text_column, notes)
    return SplitTable(table, where, Path())


def _dataset(
    tables: Mapping[str, SplitTable],
    fields: DataFields,
    reading: Reading,
    name: str,
    skipped: Skipped,
    notes: Notes,
) -> Dataset:
    if fields.task in OF_TEXTS:
        found = {split: (one.table, one.where) for split, one in tables.items()}
        open_texts = OF_TEXTS[fields.task]
        return open_texts(found, fields, reading, name=name, notes=notes, skipped=skipped)
    _, where, folder = tables["train"]
    columns_there = list(tables["train"].table.columns)
    fields = pair_coding.with_target(labelled.with_targets(fields, columns_there), where)
    features = _feature_names(Path(where), columns_there, fields)
    if len(tables["train"].table) == 0:
        left = f": {skipped}" if skipped.counts else ""
        raise DataError(f"{where}: is empty: it has a header but no rows{left}.")
    check_columns(tables, fields, features, notes)
    table, targets, coding, beside, parts, origin = placed_rows(
        tables, features, fields, skipped, notes
    )
    rows = fit_rows(parts, fields, len(table))
    if writes_texts(fields):
        (target,) = labelled.names_of(fields.target)
        coding, targets, parts = target_texts.coded(
            columns.as_texts(table[target]).tolist(),
            table.index.tolist(),
            coding,
            rows,
            parts,
            fields.target_text,
            None if reading.known is None else reading.known.spec.target_text,
            where,
            skipped if fields.on_bad == "skip" else None,
        )
        rows = fit_rows(parts, fields, len(table))
    if fields.text_column is not None:
        kinds = mixed.Kinds((), {}, {fields.text_column: "text"})
    else:
        kinds = mixed.kinds_of(table, features, rows, fields, folder)
    if len(tables) > 1:
        files = [name for name, kind in kinds.apart.items() if kind in mixed.FILES]
        table = from_one_folder(table, list(tables.values()), files)
    inputs: dict[str, InputSpec] = {}
    pools: dict[str, Pool] = {}
    there: presence.There | None = None
    if fields.missing_inputs == "mask":
        there = presence.there_in(table, kinds.columns)
        skip = fields.on_bad == "skip"
        parts = presence.check(there, parts, table.index, where, skipped, skip)
        notes.extend(presence.notes_of(there))
    if kinds.table:
        absent = None if there is None else ~there[TABLE]
        inputs[TABLE], matrix, parts = _features(
            table, kinds, parts, fields, where, reading, skipped, notes, absent
        )
        pools[TABLE] = ArrayPool(len(table), partial(Arrays, matrix, targets))
    checked: tuple[str, ...] = ("train", "validation", "test")
    if kinds.apart:
        specs, held, parts = mixed.open_apart(
            table, kinds.apart, targets, parts, fields, reading, folder, where, skipped, there
        )
        inputs, pools = {**inputs, **specs}, {**pools, **held}
        # what a file of the test split holds is not known before it is asked for
        checked = checked[:2] if set(kinds.apart.values()) & set(mixed.FILES) else checked
    if there is not None:
        inputs[PRESENT], marks = presence.as_input(there)
        pools[PRESENT] = ArrayPool(len(table), partial(Arrays, marks, targets))
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
        origins={"train": origin},
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
    absent: Bool[np.ndarray, " rows"] | None = None,
) -> tuple[InputSpec, np.ndarray, mixed.Parts]:
    """Returns what is known of the features, themselves, and the splits without damaged rows.

    Rows that are ``absent`` lack all of them: theirs are 0.
    """
    rows = fit_rows(parts, fields, len(table))
    known = None if reading.known is None else reading.known.input(TABLE)
    if known is not None and set(known.feature_names or ()) == set(kinds.table):
        kinds = kinds._replace(table=known.feature_names or ())  # in the order of its weights
    else:
        known = None
    declared = {**kinds.declared, **({} if known is None else _declared(known))}
    read = {
        name: columns.read_column(table[name], rows, declared.get(name), fields.decimal)
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
    passed = [rows for rows in (damaged, absent) if rows is not None]
    columns.raise_problems(read, where, ignored, np.any(passed, axis=0) if passed else None)
    categories: dict[str, tuple[str, ...]] = {}
    for name, column in read.items():
        if column.texts is not None:
            from jdlopt.data.preprocess import encode

            categories[name] = encode.categories(column.texts[rows])
    offsets = tuple(columns.offset_in(column, rows) for column in read.values())
    offsets = offsets if any(offsets) else ()
    if known is not None:
        categories = {name: known.categories[name] for name in categories}
        offsets = known.offsets
    table_notes.of_columns(notes, table, read, declared, rows, offsets)
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
    matrix = columns.as_matrix(read, categories, reading.hash_buckets, offsets)
    if absent is not None:
        matrix[absent] = 0
    return spec, matrix, parts


def _declared(known: InputSpec) -> dict[str, bool]:
    """Returns which columns hold categories, as a run knew it."""
    return {name: name in known.categories for name in known.feature_names or ()}


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
    if writes_texts(fields) and (fields.text_column is None or len(targets) > 1):
        raise DataError(
            f"{path}: data.task={fields.task!r} reads the texts of one column, data.text_column, "
            f"and writes those of another, data.target; found {fields.text_column!r} and "
            f"{fields.target!r}. Columns: {listing(names)}."
        )
    used = [("target", name) for name in targets] + labelled.beside_named(fields)
    for key in ("text_column", "id"):
        used += [] if getattr(fields, key) is None else [(key, getattr(fields, key))]
    many = [
        (key, name) for key in ("ignore", "categorical", "columns") for name in getattr(fields, key)
    ]
    labelled.check_named(str(path), [*used, *many], names)
    # of pairs, what says which belong together may be one of the two
    own = used[len(targets) :] if fields.task == pair_coding.TASK else used
    twice = [name for name in fields.columns if name in {one for _, one in own}]
    if twice or (fields.columns and fields.text_column is not None):
        name = twice[0] if twice else str(fields.text_column)
        key = next(key for key, one in used if one == name)
        raise DataError(
            f"{path}: data.columns: {name!r} is data.{key}, which leaves nothing to say of it."
            if twice
            else f"{path}: data.text_column makes {name!r} the only input. Leave it out, and say "
            f"data.columns={nested_columns({name: 'text'})}, and so on."
        )
    if fields.text_column is not None:
        twice = [key for key, name in used if name == fields.text_column]
        if len(twice) > 1:
            raise DataError(f"{path}: data.text_column: {fields.text_column!r} is data.{twice[0]}.")
        return (fields.text_column,)
    taken = {*(name for _, name in used), *fields.unused}
    if fields.task == pair_coding.TASK:
        taken -= {name for name in targets if name in fields.columns}
    features = tuple(name for name in names if name not in taken)
    if not features:
        raise DataError(f"{path}: no feature column is left beside the target {fields.target!r}.")
    return features
