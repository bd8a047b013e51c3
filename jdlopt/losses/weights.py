"""Class weights: how much each class, or each label's positives, count in the objective."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jdlopt.errors import ConfigError
from jdlopt.losses.functions import Outputs, PerExample, Targets, columns, full_precision


def balanced_weights(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns ``n / (k count)`` per class, k the classes that occur: each gets an equal say.

    A class without examples gets weight 0.

    Args:
      counts: the number of training examples of each class.

    Example:
      >>> balanced_weights([30, 10]).round(4).tolist()
      [0.6667, 2.0]
    """
    counts = np.asarray(counts, np.float64)
    occurs = counts > 0
    # A stand-in count of 1 avoids a division by zero in the branch that is not taken.
    shares = counts.sum() / (max(occurs.sum(), 1) * np.where(occurs, counts, 1.0))
    return np.where(occurs, shares, 0.0)


def balanced_positives(counts: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Returns ``(n - count) / count`` per label: its positives get the say of its negatives.

    A label that no example has, or that each has, gets weight 1.

    Args:
      counts: the number of training examples that have each label.
      size: the number of training examples.

    Example:
      >>> balanced_positives([1, 5, 0], 10).tolist()
      [9.0, 1.0, 1.0]
    """
    counts = np.asarray(counts, np.float64)
    both = (counts > 0) & (counts < size)
    return np.where(both, (size - counts) / np.where(both, counts, 1.0), 1.0)


def resolve_class_weights(
    setting: str | Sequence[float] | None,
    counts: Sequence[int] | np.ndarray,
    size: int | None = None,
) -> np.ndarray | None:
    """Returns the class weights that ``loss.class_weights`` asks for.

    Args:
      setting: ``"balanced"``, one weight per class or label, or None.
      counts: the number of training examples of each class, or that have each label.
      size: of labels, the number of training examples; None: of classes.

    Raises:
      ConfigError: there are not as many weights as classes, or all are zero.
    """
    if setting is None:
        return None
    if setting == "balanced":
        return balanced_weights(counts) if size is None else balanced_positives(counts, size)
    weights = np.asarray(setting, np.float64)
    if weights.shape != (len(counts),):
        raise ConfigError(
            f"loss.class_weights: found {weights.size} weights for {len(counts)} "
            f"{'classes' if size is None else 'labels'}; give one for each, or 'balanced'."
        )
    if not np.any(weights > 0):
        raise ConfigError("loss.class_weights: all are 0, so no example would count.")
    return weights


def example_weights(class_weights: Array, outputs: Outputs, targets: Targets) -> PerExample:
    """Returns each example's weight: its class's, or the mean under a soft target."""
    num_classes = class_weights.shape[0]
    if outputs.shape[-1] == 1 and num_classes == 2:
        share = columns(full_precision(outputs), targets)[..., 0]
        return class_weights[0] * (1.0 - share) + class_weights[1] * share
    if targets.ndim == outputs.ndim:
        return targets.astype(class_weights.dtype) @ class_weights
    return jnp.take(class_weights, targets.astype(jnp.int32))
