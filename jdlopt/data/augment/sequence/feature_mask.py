"""Hiding features of sequences and tables."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SERIES, Augmentation
from jdlopt.data.augment.sequence.timeline import per_channel


def feature_mask(
    key: Key[Array, ""], inputs: Float[Array, "n *shape"], strength: Scalar
) -> Float[Array, "n *shape"]:
    """Sets each feature of each example to 0, its mean after scaling, with a probability.

    Args:
      key: a random key, used once.
      inputs: a batch; of [n, time, channels], a channel is masked over all of its time.
      strength: the probability.
    """
    shape = inputs.shape if inputs.ndim == 2 else per_channel(inputs.shape)
    return jnp.where(jax.random.uniform(key, shape) < strength, 0, inputs)


FEATURE_MASK = Augmentation(
    name="feature_mask",
    apply=feature_mask,
    stage="features",
    strength="probability that a feature is set to 0",
    high=1.0,
    first=(0.1,),
    fits=("sequence",),
    source=SERIES,
    prior=0.2,
)
