"""The tables that hold a table's validation or test split, cell by cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jdlopt.data.check.cells import Cells, read_cells
from jdlopt.data.check.finding import Finding, Part
from jdlopt.data.check.structure import damage
from jdlopt.data.fields import DataFields
from jdlopt.data.notes import Notes
from jdlopt.data.table_splits import find_tables
from jdlopt.errors import DataError

OF_TRAINING = ("dates",)
"""Kinds that the training table says of the same columns."""


def of_split_files(
    path: Path, fields: DataFields, train: Cells, features: Sequence[int], target: int | None
) -> tuple[list[Finding], dict[str, int]]:
    """Returns what stops a run in the tables of splits, and how many rows each has.

    Nothing is learnt from them: which columns hold numbers, the training table says.

    Args:
      path: ``data.source``.
      fields: the data section.
      train: the training table.
      features, target: of its columns, those that are looked at.
    """
    try:
        tables = find_tables(path, fields, Notes())
    except DataError:
        return [], {}  # told where the dataset is opened
    found: list[Finding] = []
    sizes: dict[str, int] = {}
    for split, files in tables.items():
        for file in files if split != "train" else ():
            try:
                cells = _like(read_cells(file, fields.missing_values, fields.decimal), train)
            except DataError:
                continue
            there = {name: place for place, name in enumerate(cells.names)}
            places = [there[n] for n in (train.names[one] for one in features) if n in there]
            goal = None if target is None else there.get(train.names[target])
            sizes[f"rows of {file.name}"] = len(cells.numbers)
            found += [
                _named(one, file.name)
                for one in damage(cells, places, goal)
                if one.kind not in OF_TRAINING
            ]
    return found, sizes


def _like(cells: Cells, train: Cells) -> Cells:
    """Returns cells whose columns hold numbers where those of the training table do."""
    numeric = dict(zip(train.names, train.numeric, strict=True))
    own = zip(cells.names, cells.numeric, strict=True)
    made = dataclasses.replace(cells)
    object.__setattr__(made, "numeric", tuple(numeric.get(name, mine) for name, mine in own))
    return made


def _named(finding: Finding, file: str) -> Finding:
    """Returns a finding that says which file it is about, and the first row of each part."""
    parts = tuple(
        dataclasses.replace(one, name=f"{one.name}, {_first(one)}{file}") for one in finding.parts
    )
    text = f"{file}: {finding.text}"
    if finding.kind == "empty_column":  # they can be filled in, and so say nothing there
        config = "data.preprocess.missing='median'"
        return dataclasses.replace(
            finding, text=text, parts=parts, config=config, advice="Fill them in, or correct it:"
        )
    return dataclasses.replace(finding, text=text, parts=parts)


def _first(part: Part) -> str:
    return f"row {int(part.rows[0]):,} of " if len(part.rows) else "in "
