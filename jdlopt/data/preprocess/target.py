"""Scale the numbers to predict: fitted on the training split, inverted in predictions and metrics.

A loss is then of size 1 whatever the unit of its target, and a learning rate that fits one target
fits others. What is learnt travels with what preprocessing of the inputs learnt, so that each fold
has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.data.preprocess import scale

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Num  # its Array imports jax

METHODS = ("standard", "robust", "log")
TARGET = "(target)"
"""Where a state of preprocessing holds what was learnt of the targets; no input has this name."""
LARGEST_LOG = 80.0
"""A prediction beyond e^80 is taken for that: float32 ends at e^88."""


def fit(targets: Num[np.ndarray, "n *k"], method: str | None) -> dict[str, Any]:
    """Returns what `scaled` and `unscaled` need, from the targets of the training split.

    Each of several outputs has a scale of its own, see `jdlopt.data.preprocess.scale.fit`.

    Args:
      targets: of the training split.
      method: one of `METHODS`; None learns nothing.

    Example:
      >>> state = fit(np.array([100.0, 300.0]), "standard")
      >>> state["(target)"]["shift"], state["(target)"]["scale"]
      (array([200.], dtype=float32), array([100.], dtype=float32))
    """
    if method is None:
        return {}
    columns = np.asarray(targets, np.float64).reshape(len(targets), -1)
    return {TARGET: scale.fit(columns, method=method)}


def _of(state: object) -> Mapping[str, Any]:
    return state.get(TARGET, {}) if isinstance(state, Mapping) else {}


def scaled(state: object, targets: Num[Array, "n *k"]) -> Num[Array, "n *k"]:
    """Returns targets as the loss takes them. Pure; the identity where nothing was learnt.

    Args:
      state: what preprocessing learnt.
      targets: a batch, in their own unit.
    """
    found = _of(state)
    if not found:
        return targets
    columns = targets.reshape(targets.shape[0], -1)  # the size of a batch may be symbolic
    return scale.apply(found, columns).reshape(targets.shape)


def unscaled(
    state: object, outputs: Float[Array, "n *positions k"]
) -> Float[Array, "n *positions k"]:
    """Returns a model's outputs in the unit of the targets: the inverse of `scaled`. Pure.

    Args:
      state: what preprocessing learnt.
      outputs: of a batch, in the scale of the loss.
    """
    import jax.numpy as jnp

    found = _of(state)
    if not found:
        return outputs
    values = outputs.astype(jnp.float32) * found["scale"] + found["shift"]
    if "log" not in found:
        return values
    size = jnp.minimum(jnp.abs(values), LARGEST_LOG)
    return jnp.sign(values) * jnp.expm1(size)
