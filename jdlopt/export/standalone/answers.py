"""What a bundle's model says, in words and numbers; and whether a machine says what it should.

This file is part of every bundle's ``predict.py``: it imports the standard library and NumPy alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdlopt.export.standalone.examples import read_rows, read_tensors
from jdlopt.export.standalone.opening import (
    ANSWER,
    LARGEST_FILE,
    REQUEST,
    Bundle,
    BundleError,
    InputError,
    Outputs,
    read_plain,
)

MOST_PROBABILITIES, TOP = 1000, 5
"""Of more classes, the likeliest few are told."""


def predict(bundle: Bundle, arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Returns the predictions as named columns: `decoded` of what the model says.

    Raises:
      InputError: what the model says of an example is not finite.
    """
    return decoded(bundle, bundle.run(arrays))


def decoded(bundle: Bundle, found: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Returns what a model's outputs mean: classes, labels or values, and probabilities.

    Raises:
      InputError: an output is not finite.
    """
    for name, values in found.items():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            raise InputError(
                f"example {int(np.argmax(bad)) + 1}: the model's {name} are not finite: its inputs "
                "lie far outside of the training data."
            )
    said = bundle.outputs
    if said.task == "regression":
        return {
            **_numbers(found["outputs"], "prediction", said.target_names),
            **(_numbers(found["spread"], "spread", said.target_names) if "spread" in found else {}),
        }
    shares = found["probabilities"]
    if len(said.classes) > MOST_PROBABILITIES and said.task == "classification":
        return _likeliest(shares, said.classes)
    labels = _labels(shares, said)
    if len(said.classes) > MOST_PROBABILITIES:
        return {"prediction": labels}
    each = zip(said.classes, shares.T.tolist())
    return {"prediction": labels, **{f"probability_{name}": values for name, values in each}}


def _numbers(values: np.ndarray, what: str, names: Sequence[str]) -> dict[str, list[Any]]:
    keys = [f"{what}_{name}" for name in names] or [what]
    return dict(zip(keys, values.reshape(len(values), -1).T.tolist()))


def _labels(shares: np.ndarray, said: Outputs) -> list[str]:
    classes = np.array(said.classes, dtype=object)
    if said.task == "multilabel":
        limits = np.array(0.5 if said.threshold is None else said.threshold, shares.dtype)
        return ["|".join(classes[row]) for row in shares > limits]
    if said.threshold is None:
        return classes[shares.argmax(axis=1)].tolist()
    there = shares[:, said.positive] > said.threshold
    return classes[(there == bool(said.positive)).astype(int)].tolist()


def _likeliest(shares: np.ndarray, classes: Sequence[str]) -> dict[str, list[Any]]:
    best = np.argsort(-shares, axis=1, kind="stable")[:, :TOP]
    named, rows = np.array(classes, dtype=object), np.arange(len(best))
    columns: dict[str, list[Any]] = {}
    for place in range(TOP):
        ending = f"_{place + 1}" if place else ""
        columns[f"prediction{ending}"] = named[best[:, place]].tolist()
        columns[f"probability{ending}"] = shares[rows, best[:, place]].tolist()
    return columns


def as_records(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns columns as an object for each example."""
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def answer(bundle: Bundle, request: object) -> dict[str, Any]:
    """Returns the answer to a request as JSON has it: ``{"rows": […]}``, or of tensors.

    Raises:
      InputError: the request is neither, or its values can't be used.
    """
    if isinstance(request, Mapping) and "rows" in request:
        read = read_rows(bundle, rows_of(request))
    else:
        read = read_tensors(bundle, request)
    made: dict[str, Any] = {"predictions": as_records(predict(bundle, read.arrays))}
    return {**made, "notes": list(read.notes)} if read.notes else made


def rows_of(request: object) -> list[Mapping[str, Any]]:
    """Returns the rows of ``{"rows": [{COLUMN: VALUE, …}, …]}``.

    Raises:
      InputError: it is something else.
    """
    rows = request.get("rows") if isinstance(request, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InputError('expected {"rows": [{COLUMN: VALUE, …}, …]}: a list of objects.')
    return rows


def differs(expected: Any, found: Any, tolerance: float) -> str:
    """Returns where two answers differ, numbers by more than a tolerance; empty if nowhere."""
    numbers = (int, float)
    if isinstance(expected, numbers) and isinstance(found, numbers):
        near = abs(expected - found) <= tolerance * max(1.0, abs(expected))
        return "" if near else f"expected {expected!r}, found {found!r}"
    if isinstance(expected, Mapping) and isinstance(found, Mapping) and set(expected) == set(found):
        pairs: Any = [(name, expected[name], found[name]) for name in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = list(zip(range(len(expected)), expected, found))
    else:
        return "" if expected == found else f"expected {expected!r:.80}, found {found!r:.80}"
    for name, one, other in pairs:
        where = differs(one, other, tolerance)
        if where:
            return f"{name}: {where}"
    return ""


def check(bundle: Bundle) -> None:
    """Predicts for the example request, and compares the answer with the expected one.

    Raises:
      BundleError: they differ by more than the tolerance, or there is no example.
    """
    try:
        request = json.loads(read_plain(bundle.folder, REQUEST, LARGEST_FILE))
        expected = json.loads(read_plain(bundle.folder, ANSWER, LARGEST_FILE))
        where = differs(expected, answer(bundle, request), float(bundle.manifest["tolerance"]))
    except (ValueError, InputError) as error:
        raise BundleError(f"{bundle.folder / REQUEST}: {error}") from error
    if where:
        raise BundleError(
            f"{bundle.folder}: this machine's answer to {REQUEST} is not that of {ANSWER}: {where}."
        )
