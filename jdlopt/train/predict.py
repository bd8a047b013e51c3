"""Batched prediction: what weights say of any number of raw examples, as arrays of the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from jdlopt.train import step
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

BATCH_SIZE = 256
LARGEST = 1 << 24
"""Values of inputs that lie on the device together, at most."""

Inputs = Num[np.ndarray, "n ..."] | Mapping[str, Num[np.ndarray, "n ..."]]
"""Raw inputs: one array, or named ones."""


class Predicted(NamedTuple):
    """What a model says of some examples.

    Attributes:
      outputs: the model's; of numbers, in the unit of the targets.
      probabilities: of the classes; None for a regression.
      losses: of each example, where its target was given.
    """

    outputs: Float[np.ndarray, "n outputs"]
    probabilities: Float[np.ndarray, "n classes"] | None
    losses: Float[np.ndarray, " n"] | None


Predictor = Callable[[Weights, Inputs, Num[np.ndarray, "n *k"] | None], Predicted]
"""``(weights, inputs, targets or None) → Predicted``."""


def predictor(experiment: Experiment, batch_size: int | None = None) -> Predictor:
    """Returns what predicts batch by batch with `Experiment.predict`, compiled once.

    Args:
      experiment: what predicts.
      batch_size: examples in one dispatch; by default `BATCH_SIZE`, fewer where they are large.
    """

    @jax.jit
    def program(
        weights: Weights, inputs: PyTree[Array], targets: Array | None
    ) -> tuple[step.Predictions, Array | None]:
        found = experiment.predict(weights, inputs)
        if targets is None:
            return found, None
        return found, step.per_example(experiment.components, weights, found, targets)

    def predict(
        weights: Weights, inputs: Inputs, targets: Num[np.ndarray, "n *k"] | None = None
    ) -> Predicted:
        count = len(jax.tree.leaves(inputs)[0])
        size = min(batch_size or chunk_size(inputs), count)
        found = []
        for first in range(0, count, size):
            # the last batch starts earlier, so that one program serves all
            start = min(first, count - size)
            rows, fresh = slice(start, start + size), slice(first - start, None)
            part = jax.tree.map(lambda values, rows=rows: values[rows], (inputs, targets))
            made = jax.device_get(program(weights, *part))
            found.append(jax.tree.map(lambda values, fresh=fresh: values[fresh], made))
        said, losses = jax.tree.map(lambda *values: np.concatenate(values), *found)
        return Predicted(said.outputs, said.probabilities, losses)

    return predict


def chunk_size(inputs: Inputs) -> int:
    """Returns how many examples are looked at together."""
    values = sum(leaf[:1].size for leaf in jax.tree.leaves(inputs))
    return int(min(BATCH_SIZE, max(1, LARGEST // max(1, values))))
