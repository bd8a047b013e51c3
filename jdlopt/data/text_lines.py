"""Pairs of texts in two files of lines: the texts that are read, and those that are written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jdlopt import writing
from jdlopt.data import tables
from jdlopt.data.dataset import PLAIN, Dataset, Reading
from jdlopt.data.fields import COLUMN_KEYS, DataFields
from jdlopt.data.new_texts import lines_of
from jdlopt.data.notes import Notes
from jdlopt.data.walk import check_file
from jdlopt.errors import DataError

SOURCE, TARGET = "source", "target"
"""What the columns are called that the lines make; a table to predict for has the first."""


def open_lines(path: Path, fields: DataFields, reading: Reading = PLAIN) -> Dataset:
    """Opens two files of lines, of which line n of one is the target of line n of the other.

    Args:
      path: the file of the texts that are read.
      fields: the data section; ``target`` is the other file.
      reading: how texts are cut up.

    Raises:
      DataError: a file can't be read, or they have not as many lines.
    """
    import pandas as pd

    if not isinstance(fields.target, str):
        raise DataError(
            f"{path}: is a file of lines; data.target names the file of their targets, a line "
            f"each. Found {fields.target!r}."
        )
    other = writing.expanded(fields.target)
    check_file(other, "data.target")
    for key in COLUMN_KEYS:
        if key != "target" and getattr(fields, key):
            raise DataError(f"data.{key}: names a column, and {path} has lines. Leave it out.")
    notes = Notes()
    sources, targets = lines_of(path, notes), lines_of(other, notes)
    if len(sources) != len(targets):
        raise DataError(
            f"{path} has {len(sources):,} lines and {other} has {len(targets):,}: line n of the "
            "one must be the target of line n of the other."
        )
    frame = pd.DataFrame({SOURCE: sources, TARGET: targets}, dtype=object)
    fields = dataclasses.replace(fields, target=TARGET, text_column=SOURCE)
    return tables.open_frames({"train": frame}, fields, reading, str(path)).noting(notes)
