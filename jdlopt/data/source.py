"""Open a dataset: a bundled one, a CSV or Parquet file, an NPZ, an image folder, any TFDS name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Annotated, Any

from jdlopt.config import Choice, Count, Natural, Range
from jdlopt.data import cache, images, npz, tables
from jdlopt.data.bundled import BUNDLED, prepare_bundled
from jdlopt.data.dataset import Dataset
from jdlopt.data.prepared import open_prepared
from jdlopt.errors import DataError, listing, nearest

TASKS = ("auto", "classification", "regression")
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what scikit-learn's splitters take
Share = Annotated[float, Range(0, 1, low_open=True, high_open=True)]


@dataclass(frozen=True)
class DataFields:
    """The keys of a config's ``data`` section.

    Attributes:
      source: a bundled dataset's name, a file (.csv, .tsv, .parquet, .npz), an image folder, or a
        TFDS name such as ``mnist`` or ``name/config:1.0.0``. A path that looks like a name is
        written with ``./`` before it.
      target: the column or feature to predict; a TFDS dataset knows its own.
      task: ``auto`` infers it from the target's type and number of distinct values.
      batch_size: examples in a training step, over all devices.
      validation_fraction: the validation split's share of the examples that are not test, where
        the source has no validation split.
      test_fraction: the test split's share of all examples, where the source has no test split.
      folds: train and validation are one of so many folds of the examples that are not test, as
        scikit-learn's (Stratified)KFold makes them, shuffled by ``split_seed``; instead of
        ``validation_fraction``.
      fold: which of the folds is the validation split.
      split_seed: equal seeds give equal splits.
      stratify: give each split every class's share.
      data_dir: where datasets are prepared; ``$TFDS_DATA_DIR`` or the user's cache if None.
      ignore: columns or features that are left out.
      image_size: (height, width) that images are resized to.
      in_memory: keep the training split in device memory (True) or stream it (False); None decides
        by size.
    """

    source: str
    target: str | None = None
    task: Annotated[str, Choice(TASKS)] = "auto"
    batch_size: Count = 100
    validation_fraction: Share = 0.1
    test_fraction: Share = 0.2
    folds: Annotated[int, Range(2)] | None = None
    fold: Natural = 0
    split_seed: Seed = 0
    stratify: bool = True
    data_dir: str | None = None
    ignore: tuple[str, ...] = ()
    image_size: tuple[int, ...] | None = None
    in_memory: bool | None = None


def open_dataset(fields: DataFields | Mapping[str, Any], *, allow_missing: bool = False) -> Dataset:
    """Opens the dataset that a ``data`` section describes; its test split is not read yet.

    Args:
      fields: a `DataFields`, or the section as a mapping; keys of other parts are passed over.
      allow_missing: keep missing (NaN) inputs, to describe them, rather than refuse them.

    Raises:
      DataError: there is no such source, or it can't be used; says what to do about it.
    """
    if not isinstance(fields, DataFields):
        known = {field.name for field in dataclasses.fields(DataFields)}
        fields = DataFields(**{key: value for key, value in fields.items() if key in known})
    if fields.fold >= (fields.folds or 1):
        many = "data.folds is None" if fields.folds is None else f"there are {fields.folds}"
        raise DataError(f"data.fold: {fields.fold} is no fold: {many}, and they count from 0.")
    size = images.resize_to(fields.image_size)
    dataset = _open(fields, allow_missing)
    if size is not None and dataset.input_shape[:2] != size:
        raise DataError(
            f"data.image_size: {dataset.source} holds inputs of shape {dataset.input_shape}, not "
            "image files that can be resized. Leave data.image_size out."
        )
    return dataset


def _open(fields: DataFields, allow_missing: bool) -> Dataset:
    source = fields.source.strip()
    if not source:
        raise DataError(
            f"data.source: is empty; name a bundled dataset ({listing(BUNDLED)}), a file, a folder "
            "or a TFDS dataset."
        )
    if source in BUNDLED:
        folder = prepare_bundled(source, fields.data_dir)
        return open_prepared(folder, fields, source, allow_missing)
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if suffix in tables.SUFFIXES + npz.SUFFIXES:
        _check_file(path)
        if suffix in tables.SUFFIXES:
            return tables.open_table(path, fields, allow_missing)
        _check_unused(fields, path)
        return npz.open_npz(path, fields, allow_missing)
    if not source.startswith((".", "/", "~")):
        prepared = cache.prepared_folder(source, fields.data_dir)
        if prepared is not None:
            return open_prepared(prepared, fields, source, allow_missing)
    if path.is_dir():
        if (path / cache.INFO).is_file():
            return open_prepared(path, fields, path.resolve().parent.name, allow_missing)
        _check_unused(fields, path)
        return images.open_images(path, fields)
    if path.is_file():
        raise DataError(
            f"data.source: {source!r} has the ending {suffix!r}; a file must be one of "
            f"{', '.join(tables.SUFFIXES + npz.SUFFIXES)}."
        )
    if cache.parse_name(source) is None or source.startswith((".", "/", "~")):
        raise DataError(
            f"data.source: there is no file or folder {source!r} (from {os.getcwd()})."
            f"{nearest(path.name, _siblings(path))}"
        )
    return open_prepared(_prepare(source, fields.data_dir), fields, source, allow_missing)


def _siblings(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def _check_unused(fields: DataFields, path: Path) -> None:
    for key in ("target", "ignore"):
        if getattr(fields, key):
            raise DataError(
                f"data.{key}: names columns of a table or features of a TFDS dataset; {path} has "
                "none. Leave it out."
            )


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"data.source: {path} is a folder, not a file.")
    if not path.exists():
        raise DataError(
            f"data.source: there is no file '{path}' (from {os.getcwd()})."
            f"{nearest(path.name, _siblings(path))}"
        )
    if not os.access(path, os.R_OK):
        raise DataError(f"data.source: no permission to read {path}.")


def _prepare(source: str, chosen_data_dir: str | None) -> Path:
    """Has TFDS prepare a dataset in another process, which keeps TensorFlow out of this one."""
    root = cache.data_dir(chosen_data_dir)
    known = [*BUNDLED, *{folder.parent.name for folder in cache.prepared_folders(chosen_data_dir)}]
    if util.find_spec("tensorflow") is None:
        raise DataError(
            f"data.source: {source!r} is neither a bundled dataset ({listing(BUNDLED)}), nor a "
            f"file or folder, nor a TFDS dataset prepared in {root}.{nearest(source, known)} If it "
            "is a public TFDS name, TensorFlow is needed to prepare it once, as array_record: "
            "pip install 'jdlopt[tf]', then "
            f"python -m jdlopt.data.prepare {source} --data_dir={root}"
        )
    command = [sys.executable, "-m", "jdlopt.data.prepare", source, f"--data_dir={root}"]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    folder = cache.prepared_folder(source, chosen_data_dir)
    if done.returncode != 0 or folder is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise DataError(
            f"data.source: preparing the TFDS dataset {source!r} in {root} failed: "
            f"{lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    return folder
