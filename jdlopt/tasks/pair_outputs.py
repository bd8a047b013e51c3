"""What the outputs of a model of pairs are: two embeddings beside one another, and a scale."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Array, Float, Int

BESIDE = 2
"""Columns beside the two embeddings: the logarithm of the scale, and the bias."""
ROWS = 256
"""Embeddings that are compared with all others at a time."""


class Embeddings(NamedTuple):
    """What the outputs of a model of pairs are.

    Attributes:
      first, second: the embeddings [n, features], of length 1.
      log_scale: the logarithm of what similarities are multiplied by, 1 / temperature, [n].
      bias: what is added to them, [n].
    """

    first: Array
    second: Array
    log_scale: Array
    bias: Array


def width_of_pairs(features: int) -> int:
    """Returns how wide outputs are whose embeddings are so wide.

    Example:
      >>> width_of_pairs(64)
      130
    """
    return 2 * features + BESIDE


def parted(outputs: Float[Array | np.ndarray, "n outputs"]) -> Embeddings:
    """Returns the parts that stand beside one another in outputs; of NumPy's, NumPy's.

    Example:
      >>> pairs = parted(np.array([[0.6, 0.8, 1.0, 0.0, 2.0, -10.0]]))
      >>> pairs.first.tolist(), pairs.second.tolist(), pairs.bias.tolist()
      ([[0.6, 0.8]], [[1.0, 0.0]], [-10.0])
    """
    values = cast(Array, outputs)
    features = (values.shape[-1] - BESIDE) // 2
    first, second = values[:, :features], values[:, features : 2 * features]
    return Embeddings(first, second, values[:, -2], values[:, -1])


def unit(vectors: Float[Array | np.ndarray, "n features"]) -> Float[np.ndarray, "n features"]:
    """Returns vectors of length 1, in float64; what is 0 stays 0."""
    values = np.asarray(vectors, np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length != 0)


def nearest(
    queries: Float[np.ndarray, "n features"], answers: Float[np.ndarray, "m features"]
) -> Int[np.ndarray, " n"]:
    """Returns the place of the answer that is nearest to each query, the first of equals.

    Args:
      queries, answers: of length 1.

    Example:
      >>> points = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
      >>> nearest(points, points[1:]).tolist()
      [0, 0, 1]
    """
    found = np.empty(len(queries), np.int64)
    for first in range(0, len(queries), ROWS):
        rows = slice(first, first + ROWS)
        found[rows] = (queries[rows] @ answers.T).argmax(axis=1)
    return found
