"""What tasks with a class at each position measure while training."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def share_right(
    outputs: Float[Array, "... classes"], targets: Int[Array, "n *positions"]
) -> Float[Array, ""]:
    """Returns the share of positions with a target whose likeliest class is it.

    Of an ensemble's outputs it is the mean share of its models.

    Example:
      >>> outputs = jnp.array([[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]])
      >>> float(share_right(outputs, jnp.array([[0, 0, -1]])))
      0.5
    """
    there = jnp.broadcast_to(targets >= 0, outputs.shape[:-1])
    right = there & (outputs.argmax(-1) == targets)
    return right.sum() / jnp.maximum(there.sum(), 1)
