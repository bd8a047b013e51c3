"""What mixing augmentations share: how much of each of two examples, and their mean."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Inputs

Examples = Float[Array, "n ..."]
Targets = Float[Array, "n ..."]


def symmetric_beta(
    key: Key[Array, ""], alpha: Scalar, shape: tuple[int, ...]
) -> Float[Array, "*shape"]:
    """Draws from Beta(α, α) in closed form, whatever α is, and 1 where α is 0.

    With U and V uniform, ``T² = 2α (U^(-1/α) - 1) cos²(2πV)`` is the square of a t-distributed
    number of 2α degrees of freedom, and ``1/2 ± 1/2 · sqrt(T² / (2α + T²))`` is Beta(α, α). Bailey,
    "Polar generation of random variates with the t-distribution", 1994; Devroye, "Non-uniform
    random variate generation", 1986, IX.3. Unlike rejection it needs no loop.

    Args:
      key: a random key.
      alpha: α, at least 0; it may be traced.
      shape: the shape of the draws.

    Example:
      >>> draws = symmetric_beta(jax.random.key(0), 0.2, (10000,))
      >>> print(f"{draws.mean():.1f} {draws.std():.1f}")
      0.5 0.4
    """
    power_key, angle_key = jax.random.split(key)
    alpha = jnp.asarray(alpha, jnp.float32)
    tiny = jnp.finfo(jnp.float32).tiny
    # U^(1/α) underflows to 0 for a small α: the draw is then 0 or 1, as it should be
    uniform = jax.random.uniform(power_key, shape, minval=tiny)
    exponent = jnp.log(uniform) / jnp.maximum(alpha, 1e-6)
    power = jnp.exp(exponent)
    cosine = jnp.cos(2 * jnp.pi * jax.random.uniform(angle_key, shape))
    part = -jnp.expm1(exponent) * cosine**2
    draws = 0.5 + 0.5 * jnp.sign(cosine) * jnp.sqrt(part / jnp.maximum(power + part, tiny))
    return jnp.where(alpha > 0, draws, 1.0)


def partners(values: Array) -> Array:
    """Returns the example before each one: a batch is in random order, so any other one will do."""
    return jnp.roll(values, 1, axis=0)


def mixed(values: Array, share: Float[Array, "n"], others: Array) -> Array:
    """Returns ``share · values + (1 - share) · others``."""
    chex.assert_equal_shape([values, others], custom_message="examples are mixed one with one")
    chex.assert_shape(share, values.shape[:1], custom_message="an example has one share")
    share = share.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    # a share of 1 keeps the example to the bit, also beside a partner that is not finite
    return jnp.where(share == 1, values, share * values + (1 - share) * others)


def without_classes(inputs: Inputs) -> str | None:
    """Says why mixing is not tried where nothing is classified."""
    of_classes = inputs.task in ("classification", "multilabel")
    return None if of_classes else "It is for classes and labels."
