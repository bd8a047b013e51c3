"""Which examples of the source a run has in each split: ``splits.csv``."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jdlopt import writing
from jdlopt.data.dataset import Dataset
from jdlopt.data.origin import Columns, origins
from jdlopt.errors import WorkdirError
from jdlopt.train import disk

if TYPE_CHECKING:
    import pandas as pd

SPLITS = "splits.csv"
MOST_PLAIN = 100_000
"""The record of more examples is compressed: ``splits.csv.gz``."""
MOST = 10_000_000
"""Of more examples none is written: a run's data say it, as long as they are as they were."""
COLUMNS = ("file", "part", "row", "key")


def save(workdir: Path, dataset: Dataset) -> None:
    """Writes which examples are in which split, as `origins` says it, if it isn't there.

    Raises:
      WorkdirError: it can't be written.
    """
    size = sum(dataset.sizes.values())
    if find(workdir) is not None or size > MOST:
        return
    text = io.StringIO()
    found = origins(dataset)
    columns = [name for name in COLUMNS if any(name in one for one in found.values())]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", *columns])
    for split, one in found.items():
        count = len(next(iter(one.values())))
        cells = [one[name].tolist() if name in one else [""] * count for name in columns]
        writer.writerows(zip([split] * count, *cells, strict=True))
    plain = size <= MOST_PLAIN
    path = workdir / (SPLITS if plain else f"{SPLITS}.gz")
    try:
        if plain:
            writing.write_aside(path, text.getvalue())
        else:
            with writing.aside(path, binary=True) as file:
                whole = text.getvalue().encode("utf-8", "backslashreplace")
                file.write(gzip.compress(whole, compresslevel=6, mtime=0))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error


def find(workdir: Path) -> Path | None:
    """Returns the record of a run's directory, or None."""
    paths = (workdir / SPLITS, workdir / f"{SPLITS}.gz")
    return next((path for path in paths if path.is_file()), None)


def read(path: Path) -> dict[str, pd.DataFrame]:
    """Returns the examples of each split, a row each, from what `save` wrote.

    Raises:
      WorkdirError: the file is damaged.
    """
    import pandas as pd

    try:
        table = pd.read_csv(
            path, dtype={name: "str" for name in ("split", *COLUMNS) if name != "row"},
            keep_default_na=False,
        )  # fmt: skip
        parts = {
            str(split): one.drop(columns="split").reset_index(drop=True)
            for split, one in table.groupby("split", sort=False)
        }
    except Exception as error:  # the parser lets all kinds through on damaged bytes
        raise WorkdirError(
            f"{path}: is damaged: {error}. The run's checkpoints are not concerned; the same "
            "`jdlopt train` command writes it again once it is moved away."
        ) from error
    return parts


def of_dataset(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Returns the same of an opened dataset."""
    import pandas as pd

    def ordered(one: Columns) -> dict[str, np.ndarray]:
        return {name: one[name] for name in COLUMNS if name in one}

    return {split: pd.DataFrame(ordered(one)) for split, one in origins(dataset).items()}
