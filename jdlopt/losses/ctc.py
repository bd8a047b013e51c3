"""Connectionist temporal classification: the loss of symbols that are fewer than the outputs."""

from __future__ import annotations

import chex
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jdlopt.data.coding import BLANK


def ctc(
    outputs: Float[Array, "batch steps classes"], targets: Int[Array, "batch symbols"]
) -> Float[Array, " batch"]:
    r"""Returns ``-log Σ Π_t softmax(outputs_t)`` over the paths of classes that spell each target.

    A path spells what is left when its repeats are made one and its blanks are left out. Graves,
    Fernández, Gomez and Schmidhuber, "Connectionist temporal classification", 2006; by
    `optax.ctc_loss`. Steps behind an example's end take no part where a model is sure of the blank
    there (`jdlopt.models.frames.blank_where_padded`): the factor of each is 1. A target that needs
    more steps than there are has a loss of about 1e5.

    Args:
      outputs: logits; class 0 is the blank.
      targets: the classes that are said, then 0.

    Example:
      >>> loss = ctc(jnp.zeros((1, 2, 2)), jnp.array([[1, 0]]))
      >>> print(loss.round(4))  # three of the four paths: 1 1, 0 1, 1 0
      [0.2877]
    """
    chex.assert_rank(
        [outputs, targets], [3, 2], custom_message="ctc takes a row of outputs a step, and symbols"
    )
    logits = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    padding = (targets == BLANK).astype(logits.dtype)
    return optax.ctc_loss(
        logits, jnp.zeros(logits.shape[:2], logits.dtype), targets, padding, blank_id=BLANK
    )
