"""Tables whose splits are files of their own: found, and put one below the other by their columns.

A split's file is named by ``data.validation_source`` or ``data.test_source``, or lies in the folder
that ``data.source`` names and is called by the split's name: ``train.csv``, ``test.csv``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jdlopt import writing
from jdlopt.data.coding import Coding
from jdlopt.data.columns import as_texts
from jdlopt.data.damage import Skipped
from jdlopt.data.fields import DataFields
from jdlopt.data.labelled import names_of, read_labels
from jdlopt.data.notes import Notes
from jdlopt.data.parts import make_parts
from jdlopt.data.table_files import is_table, split_tables
from jdlopt.data.target_texts import TASK
from jdlopt.data.walk import check_regular, check_there
from jdlopt.errors import DataError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

Parts = Mapping[str, tuple[str, np.ndarray | None]]
KEYS = {"validation": "validation_source", "test": "test_source"}


class SplitTable(NamedTuple):
    """The table of one split.

    Attributes:
      table: its columns; the index counts its rows from 1.
      where: names it, for messages.
      folder: where the paths in it begin.
    """

    table: pd.DataFrame
    where: str
    folder: Path

    @property
    def name(self) -> str:
        """What to call it among the others."""
        return Path(self.where).name


def find_tables(path: Path, fields: DataFields, notes: Notes) -> dict[str, tuple[Path, ...]]:
    """Returns the files of each split that has its own, ``train`` first: the source, if no other.

    Args:
      path: ``data.source``: a table, a folder of Parquet parts, or one of tables named like splits.
      fields: the data section.
      notes: where tables that lie beside these are counted.

    Raises:
      DataError: there is no such file, it is no table, or a split has two.
    """
    found = split_tables(path) if path.is_dir() else {}
    if found:
        used = {one for paths in found.values() for one in paths}
        for other in sorted(path.iterdir()):
            if is_table(other) and other not in used:
                notes.add("left out", "tables beside those of the splits", other.name, 1, "files")
    made = {"train": found.get("train", (path,))}
    for split, key in KEYS.items():
        named = getattr(fields, key)
        if named is not None and split in found:
            raise DataError(
                f"data.{key}: {path} has a {split} table of its own, {found[split][0].name}. Leave "
                f"data.{key} out, or name the training table with data.source."
            )
        if named is not None:
            made[split] = (_named(named, key, made["train"]),)
        elif split in found:
            made[split] = found[split]
    return made


def _named(name: str, key: str, train: Sequence[Path]) -> Path:
    path = writing.expanded(name.strip())
    check_there(path, f"data.{key}")
    if not is_table(path):
        raise DataError(f"data.{key}: {path} is no table; expected one as data.source names.")
    if path.is_file():
        check_regular(path, f"data.{key}: {path}")
    if any(path.samefile(one) for one in train):
        raise DataError(f"data.{key}: {path} is the table that is trained on, too.")
    return path


def check_columns(
    tables: Mapping[str, SplitTable], fields: DataFields, features: Sequence[str], notes: Notes
) -> None:
    """Checks that every split's table has the columns that are needed; notes what else it has.

    Raises:
      DataError: a feature or a target is missing.
    """
    known = set(tables["train"].table.columns)
    for split, one in tables.items():
        columns = list(one.table.columns)
        targets = [name for name in names_of(fields.target) if name not in columns]
        if targets:
            remedy = (
                f"Rows without {'it' if len(targets) == 1 else 'them'} can't be evaluated: use "
                f"`jdlopt predict --input={one.where}` for them"
            )
            key = KEYS[split]
            leave = f"leave data.{key} out" if getattr(fields, key) else "name the training table"
            leave = f"{leave} with data.source" if leave.startswith("name") else leave
            raise DataError(
                f"{one.where}: the {split} table has no target {listing(map(repr, targets))}."
                f"{nearest(targets[0], columns)} {remedy}, and {leave}. Found: {listing(columns)}."
            )
        missing = [name for name in features if name not in columns]
        if missing:
            hint = nearest(missing[0], columns) if len(missing) == 1 else ""
            raise DataError(
                f"{one.where}: the {split} table lacks {len(missing)} of the {len(features)} "
                f"features of {tables['train'].name}: {listing(map(repr, missing))}.{hint} Add "
                "them, or leave them out with data.ignore."
            )
        if not len(one.table):
            raise DataError(f"{one.where}: is empty: it has a header but no rows.")
        more = [name for name in columns if name not in known]
        if more:
            what = f"columns of {one.name} that the training table does not have"
            notes.add("left out", what, listing(map(repr, more)), len(more), "columns")


class Placed(NamedTuple):
    """The rows of all splits as one table.

    Attributes:
      table: the features, and targets that are texts.
      targets: the encoded target of each row.
      coding: how they are coded.
      beside: what the data section names beside them; of training rows alone.
      parts: the rows of each split.
      origin: where each row comes from: see `jdlopt.data.origin`.
    """

    table: pd.DataFrame
    targets: np.ndarray
    coding: Coding
    beside: Mapping[str, np.ndarray]
    parts: Parts
    origin: Mapping[str, np.ndarray]


def placed_rows(
    tables: Mapping[str, SplitTable],
    features: Sequence[str],
    fields: DataFields,
    skipped: Skipped,
    notes: Notes,
) -> Placed:
    """Returns the rows with a target that can be used, each in its split."""
    first = tables["train"]
    table, coding, targets, beside = read_labels(first.table, fields, first.where, skipped, notes)
    kept, found = {"train": first._replace(table=table)}, {"train": targets}
    for split, one in tables.items():
        if split != "train":
            left, _, found[split], _ = read_labels(
                one.table, fields, one.where, skipped, notes, coding
            )
            kept[split] = one._replace(table=left)
    parts: Parts = make_parts(found, fields, coding, lambda: targets, beside)
    origin = {"row": np.concatenate([np.asarray(one.table.index) - 1 for one in kept.values()])}
    if len(tables) == 1:
        return Placed(table, targets, coding, beside, parts, origin)
    starts = dict(zip(kept, np.cumsum([0, *(len(one.table) for one in kept.values())])))
    placed: Parts = {
        split: ("train", starts[pool] + (np.arange(len(found[pool])) if rows is None else rows))
        for split, (pool, rows) in parts.items()
    }
    names = [one.name for one in kept.values() for _ in range(len(one.table))]
    if "split_by" in beside:  # the others have no key
        others = np.full(len(names) - len(table), "", object)
        beside = {**beside, "split_by": np.concatenate([beside["split_by"], others])}
    texts = names_of(fields.target) if coding.task == TASK else ()  # their tokens come later
    return Placed(
        joined(list(kept.values()), (*features, *texts)),
        np.concatenate(list(found.values())),
        coding,
        beside,
        placed,
        {**origin, "file": np.array(names, object)},
    )


def joined(tables: Sequence[SplitTable], names: Sequence[str]) -> pd.DataFrame:
    """Returns tables one below the other, in columns by name; what they hold, the first decides.

    The index says the row, and for all but the first the table: ``3 of test.csv``.

    Args:
      tables: the training table first.
      names: the columns.
    """
    import pandas as pd

    index = [
        row if place == 0 else f"{row} of {one.name}"
        for place, one in enumerate(tables)
        for row in one.table.index
    ]
    made = {name: _column([one.table[name] for one in tables]) for name in names}
    return pd.DataFrame(made, index=pd.Index(index, dtype=object))


def _column(parts: Sequence[pd.Series]) -> np.ndarray | pd.api.extensions.ExtensionArray:
    """Returns the values of a column of several tables, in a type that keeps all of them."""
    import pandas as pd

    first = parts[0].dtype
    if all(part.dtype == first for part in parts):
        return pd.concat(parts, ignore_index=True).array
    kinds = {getattr(part.dtype, "kind", "O") for part in parts}
    if kinds <= set("iuf"):
        if getattr(first, "kind", "") in "iu":  # missing values alone make floats of them
            try:
                return pd.concat([part.astype("Int64") for part in parts], ignore_index=True).array
            except (TypeError, ValueError, OverflowError):
                pass
        return np.concatenate([part.to_numpy(np.float64, na_value=np.nan) for part in parts])
    values = np.concatenate([part.astype(object).to_numpy() for part in parts])
    if isinstance(first, pd.CategoricalDtype):
        return pd.Series(values, dtype=object).astype("category").array
    return values


def from_one_folder(
    table: pd.DataFrame, tables: Sequence[SplitTable], names: Sequence[str]
) -> pd.DataFrame:
    """Returns a `joined` table whose columns of paths all begin at the first table's folder.

    Args:
      table: what `joined` gave.
      tables: what it was given.
      names: the columns of paths.
    """
    first, start = tables[0].folder, len(tables[0].table)
    for one in tables[1:]:
        rows = slice(start, start + len(one.table))
        start += len(one.table)
        if one.folder.resolve() == first.resolve():
            continue
        between = os.path.relpath(one.folder.resolve(), first.resolve())
        for name in names:
            values = as_texts(table[name])
            values[rows] = [text and os.path.join(between, text) for text in values[rows]]
            table = table.assign(**{name: values})
    return table
