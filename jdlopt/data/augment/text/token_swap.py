"""Swapping neighbouring tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import PADDING, Augmentation, Tokens


def token_swap(key: Key[Array, ""], ids: Tokens, strength: Scalar) -> Tokens:
    """Swaps neighbours: pairs up each text's tokens and swaps each pair with a probability.

    The pairs start at the first or at the second token, as often the one as the other.

    After Wei and Zou, "EDA: easy data augmentation techniques for boosting performance on text
    classification tasks", 2019, who swap any two tokens.

    Args:
      key: a random key, used once.
      ids: a batch of token ids.
      strength: the probability.
    """
    phase_key, swap_key = jax.random.split(key)
    phases = jax.random.bernoulli(phase_key, 0.5, ids.shape[:1])
    pairs = (jnp.arange(ids.shape[1]) % 2 == 0) ^ phases[:, None]
    return swapped(ids, pairs & (jax.random.uniform(swap_key, ids.shape) < strength))


def swapped(ids: Tokens, firsts: Bool[Array, "n tokens"]) -> Tokens:
    """Returns the ids with each marked token and the next one swapped, unless one is padding.

    Args:
      ids: a batch of token ids.
      firsts: marks the first token of each pair to swap; no two neighbours are both marked.

    Example:
      >>> ids = jnp.array([[5, 6, 7, 0]])
      >>> print(swapped(ids, jnp.array([[True, False, True, False]])))
      [[6 5 7 0]]
    """
    following = jnp.roll(ids, -1, axis=1).at[:, -1].set(PADDING)
    swap = firsts & (ids != PADDING) & (following != PADDING)
    second = jnp.roll(swap, 1, axis=1)  # the last token is never a first one
    return jnp.where(swap, following, jnp.where(second, jnp.roll(ids, 1, axis=1), ids))


TOKEN_SWAP = Augmentation(
    name="token_swap",
    apply=token_swap,
    stage="raw",
    strength="probability that a pair of neighbours is swapped",
    high=1.0,
    first=(0.1,),
    fits=("tokens",),
    source="Wei and Zou, EDA, 2019",
    prior=0.2,
    stays=False,
)
