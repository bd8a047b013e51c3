"""Inputs to predict on: a table, an NPZ or images, without targets, shaped as in training."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from jdlopt.data import images, npz, tables
from jdlopt.data.dataset import check_finite
from jdlopt.errors import DataError, listing, nearest


class Inputs(NamedTuple):
    """Inputs without targets, and what to call each of them in the predictions."""

    inputs: Num[np.ndarray, "examples *shape"]
    ids: list[str]


def read_inputs(path: str | os.PathLike[str], meta: Mapping[str, Any]) -> Inputs:
    """Reads inputs to predict on, with the shape and type that the model was trained on.

    Args:
      path: a CSV, TSV or Parquet file, an NPZ file, an image, or a folder of images (with or
        without subfolders). A table may have other columns, the target among them.
      meta: `Dataset.meta` of the training data.

    Returns:
      The inputs; ids are row numbers from 0, or an image's path within the folder.

    Raises:
      DataError: the path can't be read, or does not hold such inputs.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{place}: there is no such file or folder (from {os.getcwd()}).")
    shape, dtype = tuple(meta["input_shape"]), np.dtype(meta["input_dtype"])
    suffix = place.suffix.lower()
    if place.is_dir() or suffix in images.SUFFIXES:
        return _read_images(place, shape, dtype)
    if suffix in tables.SUFFIXES:
        values: np.ndarray = read_table_inputs(place, meta.get("feature_names"), math.prod(shape))
        values = values.reshape(len(values), *shape)
    elif suffix in npz.SUFFIXES:
        values = _read_npz(place, shape)
    else:
        raise DataError(
            f"{place}: expected a folder of images, an image, or a file ending in "
            f"{', '.join(tables.SUFFIXES + npz.SUFFIXES)}."
        )
    if dtype == np.uint8 and values.dtype != np.uint8:
        if not ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
            raise DataError(
                f"{place}: the model was trained on whole numbers from 0 to 255 (uint8)."
            )
    elif dtype != np.uint8 and values.dtype == np.uint8 and len(shape) == 3:
        raise DataError(
            f"{place}: holds uint8, where the model was trained on float32 inputs; convert them "
            "the way that the training data was."
        )
    check_finite(values, str(place))
    return Inputs(values.astype(dtype), [str(row) for row in range(len(values))])


def read_table_inputs(
    path: str | os.PathLike[str], feature_names: Sequence[str] | None, size: int | None = None
) -> Float32[np.ndarray, "rows features"]:
    """Returns a table's features as float32, in the order of the training data.

    Args:
      path: a CSV, TSV or Parquet file.
      feature_names: the columns to take, found by name; None takes all, in the file's order.
      size: the number of columns that there must be, where they have no names.

    Raises:
      DataError: columns are missing, or hold something other than finite numbers.
    """
    table = tables.read_table(Path(path))
    table.columns = [str(name) for name in table.columns]
    found = list(table.columns)
    if len(table) == 0:
        raise DataError(f"{path}: is empty: it has a header but no rows.")
    names = found if feature_names is None else list(feature_names)
    missing = [name for name in names if name not in found]
    if missing:
        hint = nearest(missing[0], found) if len(missing) == 1 else ""
        raise DataError(
            f"{path}: lacks {len(missing)} of the {len(names)} columns that the model was trained "
            f"on: {listing(missing)}.{hint} Found: {listing(found)}."
        )
    if feature_names is None and size is not None and len(found) != size:
        raise DataError(
            f"{path}: has {len(found)} columns; the model was trained on {size} inputs."
        )
    return tables.number_columns(table, names, str(path))


def _read_npz(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    headers = npz.read_headers(path)
    keys = [key for key in npz.INPUT_KEYS if key in headers] or (
        list(headers) if len(headers) == 1 else []
    )
    if not keys:
        raise DataError(
            f"{path}: expected an array {listing(map(repr, npz.INPUT_KEYS))}, or one array only; "
            f"found {listing(headers) or 'none'}."
        )
    raw = npz.read_array(path, keys[0])
    values = raw if raw.shape[1:] == shape else npz.as_inputs(raw, f"{path}, {keys[0]!r}")
    if values.ndim == 0 or len(values) == 0:
        raise DataError(f"{path}: {keys[0]!r} is empty.")
    if values.shape[1:] != shape:
        raise DataError(
            f"{path}: {keys[0]!r} holds inputs of shape {values.shape[1:]}; the model was trained "
            f"on {shape}."
        )
    return values if values.dtype == np.uint8 else npz.as_inputs(values, f"{path}, {keys[0]!r}")


def _read_images(place: Path, shape: tuple[int, ...], dtype: np.dtype) -> Inputs:
    if len(shape) != 3 or shape[-1] not in (1, 3) or dtype != np.uint8:
        raise DataError(
            f"{place}: the model was trained on {dtype} inputs of shape {shape}, not on images."
        )
    if place.is_dir():
        found = [
            file for folder, _, _ in os.walk(place) for file in images.image_files(Path(folder))
        ]
        paths = sorted(found)
        ids = [path.relative_to(place).as_posix() for path in paths]
    else:
        paths, ids = [place], [place.name]
    if not paths:
        raise DataError(f"{place}: holds no image ({listing(images.SUFFIXES)}).")
    size = (shape[0], shape[1])
    decoded = [images.decode_image(path, shape[-1], size, str(path)) for path in paths]
    return Inputs(np.stack(decoded), ids)
