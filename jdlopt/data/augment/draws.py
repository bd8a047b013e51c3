"""Random draws that augmentations share."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Images
from jdlopt.kernels.bits import sixteen_bits


def normals(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Draws from the standard normal distribution, by its quantiles at 2¹⁶ even probabilities.

    Seven times as fast on a CPU as `jax.random.normal`, which takes 32 bits a draw, and good for
    noise: the largest value is 4.3.
    """
    rows = (shape[0], math.prod(shape[1:]))
    probability = (sixteen_bits(key, rows).astype(jnp.float32) + 0.5) / 65536
    return (math.sqrt(2) * jax.lax.erf_inv(2 * probability - 1)).reshape(shape)


def factors(key: Key[Array, ""], images: Images, strength: Scalar) -> Float[Array, "n"]:
    """Draws a factor for each image, uniform in 1 ± strength and at least 0."""
    low = jnp.maximum(0.0, 1 - jnp.asarray(strength))
    return jax.random.uniform(key, images.shape[:1], minval=low, maxval=1 + jnp.asarray(strength))


def amounts(
    key: Key[Array, ""], images: Images, strength: Scalar, low: float = 0.0
) -> Float[Array, "n"]:
    """Draws a number for each image, uniform in [low · strength, strength)."""
    return strength * jax.random.uniform(key, images.shape[:1], minval=low)
