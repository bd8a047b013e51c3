"""Where examples come from: the row of a file, or the file, that each of a split's is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from jdlopt.data.dataset import Dataset
from jdlopt.data.pools import OfFiles, OfPools
from jdlopt.data.split import SPLITS

Columns = dict[str, np.ndarray]
"""Named columns, an example a row."""


def origins(dataset: Dataset) -> dict[str, Columns]:
    """Returns where the examples of each split come from, in the order of the split.

    Returns:
      Of each split some of these columns: ``row``, counted from 0, of the table, the array or the
      TFDS split; ``file``, a file's path in the source's folder, or the table that a row is in,
      where there are several; ``part``, the source's own split that ``row`` counts in, where it has
      several; ``key``, the value of ``data.split_by``.
    """
    return {split: _of_split(dataset, split) for split in SPLITS}


def _of_split(dataset: Dataset, split: str) -> Columns:
    name, chosen = dataset.parts[split][0], dataset.rows(split)
    known: Mapping[str, Any] = dataset.origins.get(name, {})
    made: Columns = {}
    if "row" not in known and "file" not in known:
        made["row"] = chosen
        if len(dataset.pools) > 1:
            made["part"] = np.full(len(chosen), name, object)
    return made | {column: np.asarray(values)[chosen] for column, values in known.items()}


def names(dataset: Dataset, split: str) -> list[str]:
    """Returns what a split's examples are called; see `names_at`."""
    return names_at(dataset, dataset.parts[split][0], dataset.rows(split))


def names_at(dataset: Dataset, pool: str, places: Int[np.ndarray, " some"]) -> list[str]:
    """Returns what examples are called: a file's path, or a row, counted from 0.

    Args:
      dataset: whose examples they are.
      pool: the name of one of its pools.
      places: where they lie in it.
    """
    known: Mapping[str, Any] = dataset.origins.get(pool, {})
    files = [str(one) for one in np.asarray(known["file"])[places]] if "file" in known else []
    if files and "row" not in known:
        return files
    rows = np.asarray(known["row"])[places] if "row" in known else places
    made = [f"row {row:,}" for row in rows.tolist()]
    if files:
        made = [f"{file}, {row}" for file, row in zip(files, made, strict=True)]
    held = dataset.pools[pool]
    for one in held.pools.values() if isinstance(held, OfPools) else ():
        if isinstance(one, OfFiles):  # a row names them
            paths = [one.paths[place].name for place in places.tolist()]
            made = [f"{row}, {path}" for row, path in zip(made, paths, strict=True)]
    return made
