"""Losses where an example has a class at each of its positions: of a text, a sound, an image."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Outputs = Float[Array, "batch *positions outputs"]
Targets = Int[Array, "batch *positions"]


def of_rows(
    loss: Callable[[Array, Array], Array], outputs: Outputs, targets: Targets, positions: int
) -> tuple[Float[Array, "batch *positions"], Bool[Array, "batch *positions"]]:
    """Computes a loss of single rows at each position, and says which positions have a target.

    Args:
      loss: ``(outputs [rows, outputs], targets [rows]) → losses [rows]``.
      outputs: a row at each position.
      targets: a class at each; below 0 there is none, and the loss there is 0.
      positions: how many axes they have.

    Example:
      >>> from jdlopt.losses import cross_entropy
      >>> targets = jnp.array([[1, 0, -1]])
      >>> losses, real = of_rows(cross_entropy, jnp.zeros((1, 3, 2)), targets, 1)
      >>> [round(float(loss), 3) for loss in losses[0]], real[0].tolist()
      ([0.693, 0.693, 0.0], [True, True, False])
    """
    shape = outputs.shape[:-1]
    chex.assert_rank(outputs, 2 + positions)
    need = f"targets have shape {targets.shape}, but these outputs need {shape}"
    chex.assert_shape(targets, shape, custom_message=need)
    real = targets >= 0
    flat = loss(outputs.reshape(-1, outputs.shape[-1]), jnp.maximum(targets, 0).reshape(-1))
    return jnp.where(real, flat.reshape(shape), 0.0), real


def over_positions(
    losses: Float[Array, "batch *positions"], real: Bool[Array, "batch *positions"]
) -> Float[Array, " batch"]:
    """Returns the mean over each example's positions that have a target; 0 where none has.

    Example:
      >>> over_positions(jnp.array([[1.0, 3.0, 0.0]]), jnp.array([[True, True, False]])).tolist()
      [2.0]
    """
    axes = tuple(range(1, losses.ndim))
    return losses.sum(axes) / jnp.maximum(real.sum(axes), 1).astype(losses.dtype)
