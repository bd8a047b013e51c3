"""Losses of masks: how far the classes that are predicted overlap with the true ones."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jdlopt.config import Fraction, Positive
from jdlopt.losses.positions import of_rows, over_positions

Outputs = Float[Array, "batch *positions classes"]
Targets = Int[Array, "batch *positions"]
PerExample = Float[Array, "batch"]


def dice(outputs: Outputs, targets: Targets, *, dice_smooth: Positive = 1.0) -> PerExample:
    r"""Returns one minus the mean soft Dice coefficient over the classes, of each example.

    ``1 - mean_c (2 sum_i p_ic y_ic + s) / (sum_i p_ic + sum_i y_ic + s)``, ``p = softmax(outputs)``
    and ``y`` the targets as one-hot rows, over the positions i that have a target. A class counts
    as much as any other, however few pixels it has (Milletari, Navab and Ahmadi, "V-Net", 2016,
    https://arxiv.org/abs/1606.04797, without the squares in the denominator).

    Args:
      outputs: logits at each position.
      targets: a class at each; below 0 there is none.
      dice_smooth: s, in pixels; a class that an example doesn't have is then told from one that
        is predicted for a few of its pixels.

    Example:
      >>> outputs = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
      >>> print(dice(outputs, jnp.array([[0, 1]])).round(4))
      [0.]
      >>> print(dice(outputs, jnp.array([[1, 0]]), dice_smooth=1e-3).round(2))
      [1.]
    """
    logits = _precise(outputs)
    need = f"targets have shape {targets.shape}, but these outputs need {logits.shape[:-1]}"
    chex.assert_shape(targets, logits.shape[:-1], custom_message=need)
    real = (targets >= 0)[..., None]
    axes = tuple(range(1, logits.ndim - 1))
    shares = jnp.where(real, jax.nn.softmax(logits), 0.0)
    truth = jnp.where(real, jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype), 0.0)
    both = (shares * truth).sum(axes)
    either = shares.sum(axes) + truth.sum(axes)
    return 1.0 - ((2.0 * both + dice_smooth) / (either + dice_smooth)).mean(axis=-1)


def cross_entropy_dice(
    outputs: Outputs,
    targets: Targets,
    *,
    dice_weight: Fraction = 0.5,
    dice_smooth: Positive = 1.0,
) -> PerExample:
    """Returns ``(1 - w) · cross-entropy + w · dice`` of each example.

    The cross-entropy is the mean over the positions that have a target: it tells pixels apart from
    the first step on, where the overlap's gradient is small. Isensee et al., "nnU-Net", 2021.

    Args:
      outputs: logits at each position.
      targets: a class at each; below 0 there is none.
      dice_weight: w, the share of the overlap in the loss.
      dice_smooth: as in `dice`.

    Example:
      >>> outputs, targets = jnp.zeros((1, 2, 2)), jnp.array([[0, 1]])
      >>> print(cross_entropy_dice(outputs, targets, dice_weight=0.0).round(4))
      [0.6931]
    """
    each = optax.softmax_cross_entropy_with_integer_labels
    rows = over_positions(*of_rows(each, _precise(outputs), targets, targets.ndim - 1))
    overlap = dice(outputs, targets, dice_smooth=dice_smooth)
    return (1.0 - dice_weight) * rows + dice_weight * overlap


def _precise(values: Array) -> Array:
    """Casts to float32 or wider."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
