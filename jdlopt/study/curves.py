"""The curves of a study's trials on disk: a file for each population, joined at the study's end."""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt import writing
from jdlopt.executor.messages import Row, TrialResult

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CURVES, PARTS = "curves.parquet", "curves"
TRAINING = ["trial", "seed", "fold"]
EMPTY = [*TRAINING, "step", "epoch"]
"""The columns of a table of no curves."""
WRITTEN = "written"
"""A column while files are joined: which of them a row is from."""
DAMAGED = ".damaged"
"""What the name of a file that can't be read ends with, once that was said."""


class CurvesWarning(UserWarning):
    """A file of curves is damaged and was passed over."""


def rows_of(trainings: Sequence[TrialResult]) -> list[Row]:
    """Returns the logged lines of trainings as rows of ``curves.parquet``."""
    return [
        {
            "trial": one.number,
            "seed": one.seed,
            "fold": -1 if one.fold is None else one.fold,
            **row,
        }
        for one in trainings
        for row in one.rows
    ]


def add(workdir: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows to a file of their own, aside and renamed: what is there is whole.

    Its name says that it is newer than all that are there, whatever the clock says.
    """
    if not rows:
        return
    folder = workdir / PARTS
    writing.make_folder(folder)
    numbers = [path.name.partition("-")[0] for path in _parts(workdir)]
    newest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    _write(folder / f"{newest + 1:020d}-{uuid.uuid4().hex[:12]}.parquet", _table(rows))


def read(workdir: Path) -> tuple[pd.DataFrame, dict[Path, str]]:
    """Returns all rows written so far, those of the newest training of each trial alone.

    Returns:
      The table, and by file what is wrong with those that can't be read: their rows are left out.
    """
    import pandas as pd

    tables, damaged = [], dict[Path, str]()
    for path in (workdir / CURVES, *_parts(workdir)):
        try:
            tables.append(_read(path))
        except FileNotFoundError:
            continue  # there is none yet, or another coordinator has just joined it
        except (OSError, ValueError, LookupError, TypeError, MemoryError) as error:  # pyarrow's
            damaged[path] = str(error).partition("\n")[0][:200] or type(error).__name__
    if not tables:
        return pd.DataFrame(columns=EMPTY), damaged
    joined = pd.concat(tables, keys=range(len(tables)), names=[WRITTEN]).reset_index(WRITTEN)
    newest = joined[WRITTEN] == joined.groupby(TRAINING)[WRITTEN].transform("max")
    found = joined[newest].drop(columns=WRITTEN).drop_duplicates([*TRAINING, "step"], keep="last")
    return found.sort_values([*TRAINING, "step"], ignore_index=True), damaged


def gather(workdir: Path) -> pd.DataFrame:
    """Joins the parts into ``curves.parquet`` and removes them; returns the table.

    A file that can't be read is passed over with a warning, and keeps its content under another
    name.
    """
    import pyarrow as pa

    parts = _parts(workdir)
    table, damaged = read(workdir)
    for path, reason in damaged.items():
        warnings.warn(
            f"{path}: can't be read ({reason}); its curves are left out. The trials' values, which "
            "are kept elsewhere, stand.",
            CurvesWarning,
            stacklevel=2,
        )
        with contextlib.suppress(OSError):
            path.rename(path.with_name(path.name + DAMAGED))
    if parts:
        _write(workdir / CURVES, pa.Table.from_pandas(table, preserve_index=False))
        for part in parts:
            part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another coordinator may write there still
        (workdir / PARTS).rmdir()
    return table


def half_written(workdir: Path) -> Iterator[Path]:
    """Yields what processes that were killed had begun to write; call it when none is at work."""
    for folder in (workdir, workdir / PARTS):
        yield from folder.glob(".*.parquet.*")


def _parts(workdir: Path) -> list[Path]:
    return sorted((workdir / PARTS).glob("*.parquet"))


def _read(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.exists() and not path.is_file():
        raise ValueError("it is no file")  # a pipe would be waited for
    # by its own content alone: a folder named "a=1" is no column, and a bit that flipped is told
    with path.open("rb") as file:
        found = pq.ParquetFile(file, page_checksum_verification=True).read()
    for name in (*TRAINING, "step"):
        if found.column_names.count(name) != 1:
            raise ValueError(f"it has no column {name!r}")
        if not pa.types.is_integer(found[name].type) or found[name].null_count:
            raise ValueError(f"{name!r} is not a whole number everywhere")
    others = {*found.column_names} - {*TRAINING, "step"}
    strange = [name for name in others if not pa.types.is_floating(found[name].type)]
    if strange or WRITTEN in others:
        raise ValueError(f"{(strange or [WRITTEN])[0]!r} is no column of numbers of a training")
    return found.to_pandas(ignore_metadata=True)


def _table(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    import pyarrow as pa

    whole = {"trial": pa.int32(), "seed": pa.int64(), "fold": pa.int32(), "step": pa.int32()}
    names = dict.fromkeys([*whole, "epoch", *(name for row in rows for name in row)])
    columns = {}
    for name in names:
        kind = whole.get(name, pa.float32())
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, kind)
    return pa.table(columns)


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with writing.aside(path, str(os.getpid()), binary=True) as file:
        pq.write_table(table, file, write_page_checksum=True)
