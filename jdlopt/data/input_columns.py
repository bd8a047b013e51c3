"""The columns of a file to predict for, as they stand in it, to be written beside predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt import writing
from jdlopt.data import conll, csv_text, npz, table_files
from jdlopt.data.named import by_name
from jdlopt.data.new_texts import lines_of
from jdlopt.data.notes import Notes
from jdlopt.data.spec import InputSpec
from jdlopt.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, list[Any]]
FILE = "file"
"""What the column is called that holds each input's own file."""


def columns_of_path(
    path: str | Path,
    spec: InputSpec | Mapping[str, InputSpec],
    ids: list[str],
    only: str | None = None,
) -> Columns:
    """Returns the columns of a file, a row for each input that `read_inputs` reads of it.

    Args:
      path: a table, a file of texts, an image or sound, or a folder of them.
      spec: of the input or inputs that it is read for.
      ids: the inputs', as `read_inputs` gives them.
      only: the one column that is wanted, if the file has it; None: all.

    Returns:
      A table's columns in their order, numbers of a CSV as the text that they are written in and
      missing values as None; of a text file its lines; of images and sounds the files.

    Raises:
      DataError: the file is one of arrays, which have no columns.
    """
    place = writing.expanded(path)
    texts = [one.text for one in by_name(spec).values() if one.text is not None]
    if table_files.is_table(place):
        return of_frame(_as_written(place), only)
    if only is not None:
        return {}
    if place.suffix.lower() in npz.SUFFIXES and place.is_file():
        raise DataError(
            f"--with-inputs: {place} holds arrays, which have no columns to write. The rows of the "
            "predictions are in the order of its examples."
        )
    if texts and place.is_file() and conll.is_conll(place, "auto"):
        sentences = conll.as_words(place, texts[0].word_column)
        return {texts[0].column: [" ".join(words) for words in sentences]}
    if texts and place.is_file():
        return {texts[0].column: lines_of(place, Notes())}
    return {FILE: [str(place / name) if place.is_dir() else str(place) for name in ids]}


def _as_written(place: Path) -> pd.DataFrame:
    names: tuple[str, ...] = ()
    if place.is_file() and csv_text.endings(place)[0] in table_files.CSV:
        with csv_text.open_text(place, Notes()) as opened:
            names = tuple(opened.names)
    return table_files.read_table(place, as_text=names, missing_values=())


def of_frame(frame: pd.DataFrame, only: str | None = None) -> Columns:
    """Returns the columns of a DataFrame as values that any file can hold, or one of them."""
    return {
        str(name): [_plain(value) for value in frame[name].astype(object)]
        for name in frame.columns
        if only is None or str(name) == only
    }


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)
