"""Shifting sequences in time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SERIES, Augmentation
from jdlopt.data.augment.sequence.timeline import shifted, without_order


def time_shift(
    key: Key[Array, ""], inputs: Float[Array, "n time *channels"], strength: Scalar
) -> Float[Array, "n time *channels"]:
    """Shifts each example in time by whole positions; what comes in is 0.

    The shift is uniform over the whole numbers within ``± strength · time``.

    Args:
      key: a random key, used once.
      inputs: a batch of sequences or waveforms.
      strength: the largest shift, as a share of the length.
    """
    largest = jnp.floor(strength * inputs.shape[1])
    draws = jax.random.uniform(key, inputs.shape[:1], minval=-1.0, maxval=1.0)
    return shifted(inputs, jnp.floor(draws * (largest + 0.5) + 0.5).astype(jnp.int32))


TIME_SHIFT = Augmentation(
    name="time_shift",
    apply=time_shift,
    stage="features",
    strength="largest shift, as a share of the length",
    high=1.0,
    first=(0.05, 0.15),
    fits=("sequence",),
    source=SERIES,
    prior=0.5,
    hindrance=without_order,
    stays=False,
)
