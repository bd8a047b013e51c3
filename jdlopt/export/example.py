"""A bundle's example request: made up, so that no row of anybody's data leaves with a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdlopt.data.named import TABLE, by_name
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.export.standalone.opening import Bundle, Column

QUARTILES = (0.25, 0.75)
"""The rows of a table's example: of each column by itself, so that they are no row of the data."""


def example_rows(bundle: Bundle, known: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns a request of two rows by the columns' names, at the quartiles of each column.

    Args:
      bundle: whose inputs are all made of columns.
      known: inputs of some examples, coded as the model takes them, by name; may be empty.
    """
    rows: list[dict[str, Any]] = [{} for _ in QUARTILES]
    for one in bundle.inputs:
        columns = one.columns or ()
        values = known.get(one.name, np.empty((0, len(columns)), np.float32))
        for column, coded in zip(columns, values.reshape(len(values), len(columns)).T, strict=True):
            for row, quartile in zip(rows, QUARTILES, strict=True):
                row[column.name] = _value(column, coded, quartile, one.buckets is not None)
    return {"rows": rows}


def _value(column: Column, coded: np.ndarray, quartile: float, hashed: bool) -> float | str:
    if column.codes is not None:
        names = list(column.codes)
        some = coded[coded >= 1]
        if hashed or not len(some):
            return names[0] if names else ""
        return names[int(np.quantile(some, quartile, method="nearest")) - 1]
    some = coded[np.isfinite(coded)]
    value = np.float32(np.quantile(some, quartile, method="nearest") if len(some) else 0)
    if column.offset:
        return float(value) + column.offset
    return float(str(value))  # as few digits as float32 has


def example_tensors(spec: DataSpec) -> dict[str, Any]:
    """Returns a request of the Open Inference Protocol: one example of random values."""
    generator = np.random.default_rng(0)
    tensors = []
    for name, one in by_name(spec.inputs).items():
        values = _random(generator, one)
        tensors.append(
            {
                "name": name,
                "shape": [1, *one.shape],
                "datatype": {"float32": "FP32", "uint8": "UINT8", "int32": "INT32"}[one.dtype],
                "data": values.ravel().tolist(),
            }
        )
    return {"inputs": tensors}


def _random(generator: np.random.Generator, one: InputSpec) -> np.ndarray:
    if one.dtype == "uint8":
        return generator.integers(0, 256, one.shape)
    if one.text is not None:
        return generator.integers(0, one.text.size, one.shape)
    if one.dtype == "int32":
        return np.zeros(one.shape, np.int64)
    values = generator.standard_normal(one.shape).round(3)
    if one.categories and one.feature_names:  # codes, which 0 stands for none of
        for place, column in enumerate(one.feature_names):
            values[place] = 1.0 if column in one.categories else values[place]
    offsets = np.array(one.offsets or 0.0, np.float64)
    return values + (offsets.reshape(one.shape) if one.offsets else offsets)


def coded_inputs(inputs: Any) -> dict[str, np.ndarray]:
    """Returns the tables among inputs of some examples, by name."""
    return {name: values for name, values in by_name(inputs).items() if name in ("input", TABLE)}
