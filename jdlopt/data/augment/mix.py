"""Mixing augmentation: each example takes a part of another one, and of its target."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.data.augment.part import Augmentation

Inputs = Float[Array, "n ..."]
Targets = Float[Array, "n ..."]
Strength = float | Float[Array, ""]


def symmetric_beta(
    key: Key[Array, ""], alpha: Strength, shape: tuple[int, ...]
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


def _partners(values: Array) -> Array:
    """The example before each one: a batch is in random order, so any other one will do."""
    return jnp.roll(values, 1, axis=0)


def _mixed(values: Array, share: Float[Array, "n"], partners: Array) -> Array:
    share = share.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    # a share of 1 keeps the example to the bit, also beside a partner that is not finite
    return jnp.where(share == 1, values, share * values + (1 - share) * partners)


def mixup(
    key: Key[Array, ""], inputs: Inputs, targets: Targets, strength: Strength
) -> tuple[Inputs, Targets]:
    """Makes each example a mean of itself and another one, and its target the same mean.

    ``λ · x + (1 - λ) · x'`` with λ from Beta(α, α). Zhang, Cissé, Dauphin and Lopez-Paz, "mixup:
    beyond empirical risk minimization", 2018. The paper draws one λ a batch; here each example has
    its own, from the same distribution, so that all batches are mixed about as much.

    Args:
      key: a random key.
      inputs: inputs of any shape.
      targets: distributions over classes, or numbers.
      strength: α; 0 returns inputs and targets to the bit.
    """
    share = symmetric_beta(key, strength, inputs.shape[:1])
    return _mixed(inputs, share, _partners(inputs)), _mixed(targets, share, _partners(targets))


def cutmix(
    key: Key[Array, ""], inputs: Inputs, targets: Targets, strength: Strength
) -> tuple[Inputs, Targets]:
    """Puts a rectangle of another example into each one, and mixes targets by its area.

    The rectangle has the image's proportions and ``1 - λ`` of its area, λ from Beta(α, α); its
    middle is uniform, what lies beyond the border is cut off, and the target's share is the area
    that is left. In signals it is an interval. Yun et al., "CutMix: regularization strategy to
    train strong classifiers with localizable features", 2019; here each example has a rectangle of
    its own, where the paper has one a batch.

    Args:
      key: a random key.
      inputs: images [n, h, w, c] or signals [n, length, c] or [n, length].
      targets: distributions over classes, or numbers.
      strength: α; 0 returns inputs and targets to the bit.
    """
    n, space = inputs.shape[0], inputs.shape[1:-1] or inputs.shape[1:]
    share_key, place_key = jax.random.split(key)
    side = (1 - symmetric_beta(share_key, strength, (n,))) ** (1 / len(space))
    middles = jax.random.uniform(place_key, (len(space), n))
    inside = jnp.ones((n, *[1] * len(space)), bool)
    for axis, size in enumerate(space):
        first = jnp.round((middles[axis] - side / 2) * size)
        end = first + jnp.round(side * size)
        place = jnp.arange(size, dtype=jnp.float32)
        within = (place >= first[:, None]) & (place < end[:, None])
        inside &= within.reshape(n, *[size if other == axis else 1 for other in range(len(space))])
    share = 1 - inside.mean(tuple(range(1, 1 + len(space))), dtype=jnp.float32)
    inside = inside.reshape(*inside.shape, *[1] * (inputs.ndim - inside.ndim))
    return jnp.where(inside, _partners(inputs), inputs), _mixed(targets, share, _partners(targets))


MIX: dict[str, Augmentation] = {
    "mixup": Augmentation(mixup, "α of the Beta(α, α) that says how to mix examples", None),
    "cutmix": Augmentation(cutmix, "α of the Beta(α, α) that says how much to paste", None),
}
"""The augmentations that mix examples, by name; they are called with the targets as well."""
