"""Multiplying each example, and each channel of it, by a factor."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SERIES, Augmentation, unless_zero
from jdlopt.data.augment.sequence.timeline import per_channel


def scaling(
    key: Key[Array, ""], inputs: Float[Array, "n *shape"], strength: Scalar
) -> Float[Array, "n *shape"]:
    """Multiplies each example, and each channel of it, by a factor: ``x · N(1, strength)``.

    Um et al., "Data augmentation of wearable sensor data", 2017.

    Args:
      key: a random key, used once.
      inputs: a batch; [n, features] gets one factor an example, [n, time, channels] one a channel.
      strength: the factors' standard deviation; 0 returns the inputs.
    """
    factors = 1 + strength * jax.random.normal(key, per_channel(inputs.shape), inputs.dtype)
    return unless_zero(strength, inputs * factors, inputs)


SCALING = Augmentation(
    name="scaling",
    apply=scaling,
    stage="features",
    strength="standard deviation of each example's factor",
    high=None,
    first=(0.1, 0.3),
    fits=("sequence",),
    source=SERIES,
    prior=0.35,
)
