"""Replacing tokens by the unknown one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import (
    PADDING,
    SURVEY,
    UNKNOWN,
    Augmentation,
    Tokens,
)


def token_dropout(key: Key[Array, ""], ids: Tokens, strength: Scalar) -> Tokens:
    """Replaces each token by the unknown one with a probability; the others keep their places.

    Iyyer et al., "Deep unordered composition rivals syntactic methods for text classification",
    2015, drop words; Bowman et al., "Generating sentences from a continuous space", 2016, put the
    unknown word in their place, as here.

    Args:
      key: a random key, used once.
      ids: a batch of token ids.
      strength: the probability.
    """
    dropped = jax.random.uniform(key, ids.shape) < strength
    return jnp.where(dropped & (ids != PADDING), UNKNOWN, ids)


TOKEN_DROPOUT = Augmentation(
    name="token_dropout",
    apply=token_dropout,
    stage="raw",
    strength="probability that a token becomes unknown",
    high=1.0,
    first=(0.1,),
    fits=("tokens",),
    source=SURVEY,
    prior=0.35,
)
