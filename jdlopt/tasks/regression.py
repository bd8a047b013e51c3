"""Regression: one number or several to predict for an example."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Array, Float

from jdlopt.data.coders import CODERS
from jdlopt.data.spec import DataSpec
from jdlopt.tasks.task import Columns, Decoded, Task


def width(spec: DataSpec, loss: str) -> int:
    """Returns one output a number."""
    return math.prod(spec.target_shape)


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns nothing: the loss says it."""
    return {}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the outputs, shaped as the targets are."""
    return Decoded(outputs.reshape(len(outputs), *spec.target_shape), None)


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the number, or a column for each of several."""
    if not spec.target_names:
        return {"prediction": decoded.values.tolist()}
    named = zip(spec.target_names, decoded.values.T.tolist(), strict=True)
    return {f"prediction_{name}": values for name, values in named}


REGRESSION = Task(
    name="regression",
    coder=CODERS["regression"],
    link="identity",
    losses=("mse", "mae", "huber"),
    metrics=("mse", "mae"),
    monitor="validation/loss",
    judged="rmse",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"values", "simple models"}),
    loss_of={"mae": "mae"},
)
