"""Playing sequences at a speed that varies smoothly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SERIES, Augmentation, unless_zero
from jdlopt.data.augment.sequence.timeline import warped, without_order

WAVES = 3
"""Half waves in a warp's change of speed: the slowest of them spans the whole sequence."""


def time_warp(
    key: Key[Array, ""], inputs: Float[Array, "n time *channels"], strength: Scalar
) -> Float[Array, "n time *channels"]:
    """Plays each example at a speed that varies smoothly; its two ends stay where they are.

    Reads position ``u + strength · Σₖ aₖ sin(πku) / (πk)`` where the plain sequence would read
    ``u`` (0 at its start, 1 at its end), interpolated linearly. The weights are random, with
    ``Σₖ |aₖ| = 1``; so the speed stays within ``1 ± strength``, and time never runs backwards.

    After Um et al., "Data augmentation of wearable sensor data", 2017, who draw the speed as a
    cubic spline.

    Args:
      key: a random key, used once.
      inputs: a batch of sequences.
      strength: the largest relative change of speed, in [0, 1]; 0 returns the inputs.
    """
    draws = jax.random.uniform(key, (len(inputs), WAVES), minval=-1.0, maxval=1.0)
    weights = draws / jnp.maximum(jnp.abs(draws).sum(axis=1, keepdims=True), 1e-6)
    last = inputs.shape[1] - 1
    frequencies = jnp.pi * jnp.arange(1, WAVES + 1)
    phases = frequencies * jnp.arange(last + 1)[:, None] / max(1, last)
    waves = last * jnp.sin(phases) / frequencies
    # a sum rather than a matmul, which accelerators would round to fewer bits
    moved = strength * (weights[:, None, :] * waves).sum(axis=-1)
    return unless_zero(strength, warped(inputs, moved), inputs)


TIME_WARP = Augmentation(
    name="time_warp",
    apply=time_warp,
    stage="features",
    strength="largest relative change of speed",
    high=1.0,
    first=(0.1, 0.25),
    fits=("sequence",),
    source=SERIES,
    prior=0.4,
    hindrance=without_order,
    stays=False,
)
