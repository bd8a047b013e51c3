"""What the outputs of a model of pairs are: two embeddings beside one another, and a scale."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Array, Float

BESIDE = 2
"""Columns beside the two embeddings: the logarithm of the scale, and the bias."""


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
