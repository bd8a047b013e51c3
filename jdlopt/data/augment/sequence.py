"""Augmentation of sequences and tables: noise, factors, shifts, warps of time, masks.

A batch is [n, features], [n, time] or [n, time, channels], scaled already, so that 0 is a feature's
mean. What each function draws is drawn for every example anew; the functions that draw nothing
(`shifted`, `warped`, `spans`) are the same operations at given parameters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jdlopt.data.augment.color import normals
from jdlopt.data.augment.part import Augmentation

Strength = Float[Array, ""]

WAVES = 3
"""Half waves in a warp's change of speed: the slowest of them spans the whole sequence."""


def jitter(
    key: Key[Array, ""], inputs: Float[Array, "n *shape"], strength: Strength
) -> Float[Array, "n *shape"]:
    """Adds Gaussian noise to every value: ``x + strength · N(0, 1)``.

    Um et al., "Data augmentation of wearable sensor data for Parkinson's disease monitoring using
    convolutional neural networks", 2017.

    Args:
      key: a random key, used once.
      inputs: a batch.
      strength: the noise's standard deviation; 0 returns the inputs.
    """
    noise = normals(key, inputs.shape)
    return unless_zero(strength, inputs + strength * noise, inputs)


def scaling(
    key: Key[Array, ""], inputs: Float[Array, "n *shape"], strength: Strength
) -> Float[Array, "n *shape"]:
    """Multiplies each example, and each channel of it, by a factor: ``x · N(1, strength)``.

    Um et al., 2017 (see `jitter`).

    Args:
      key: a random key, used once.
      inputs: a batch; [n, features] gets one factor an example, [n, time, channels] one a channel.
      strength: the factors' standard deviation; 0 returns the inputs.
    """
    factors = 1 + strength * jax.random.normal(key, per_channel(inputs.shape), inputs.dtype)
    return unless_zero(strength, inputs * factors, inputs)


def time_shift(
    key: Key[Array, ""], inputs: Float[Array, "n time *channels"], strength: Strength
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


def shifted(
    inputs: Float[Array, "n time *channels"], positions: Int[Array, " n"]
) -> Float[Array, "n time *channels"]:
    """Returns each example shifted by so many positions: ``y[t] = x[t - positions]``, or 0.

    Args:
      inputs: a batch of sequences.
      positions: how much later (positive) or earlier (negative) each example's values come.

    Example:
      >>> print(shifted(jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), jnp.array([1, -2])))
      [[0. 1. 2.]
       [3. 0. 0.]]
    """
    length = inputs.shape[1]
    around = [(0, 0)] * inputs.ndim
    around[1] = (length, length)
    padded = jnp.pad(inputs, around)
    starts = length - jnp.clip(positions, -length, length)
    return jax.vmap(lambda row, start: jax.lax.dynamic_slice_in_dim(row, start, length))(
        padded, starts
    )


def time_warp(
    key: Key[Array, ""], inputs: Float[Array, "n time *channels"], strength: Strength
) -> Float[Array, "n time *channels"]:
    """Plays each example at a speed that varies smoothly; its two ends stay where they are.

    Reads position ``u + strength · Σₖ aₖ sin(πku) / (πk)`` where the plain sequence would read
    ``u`` (0 at its start, 1 at its end), interpolated linearly. The weights are random, with
    ``Σₖ |aₖ| = 1``; so the speed stays within ``1 ± strength``, and time never runs backwards.

    After Um et al., 2017 (see `jitter`), who draw the speed as a cubic spline.

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


def warped(
    inputs: Float[Array, "n time *channels"], moved: Float[Array, "n time"]
) -> Float[Array, "n time *channels"]:
    """Returns ``y[t] = x(t + moved[t])``, interpolated linearly; beyond its ends, x stays constant.

    Args:
      inputs: a batch of sequences.
      moved: how far from its own position each position is read.

    Example:
      >>> print(warped(jnp.array([[0.0, 10.0, 20.0]]), jnp.array([[0.5, -0.25, 7.0]])))
      [[ 5.   7.5 20. ]]
    """
    last = inputs.shape[1] - 1
    whole = jnp.floor(moved)  # apart from t, so that long sequences keep the fraction's digits
    lower = jnp.arange(last + 1) + whole.astype(jnp.int32)
    fraction = along_time((moved - whole).astype(inputs.dtype), inputs)

    def read(positions: Int[Array, "n time"]) -> Float[Array, "n time *channels"]:
        rows = jnp.clip(positions, 0, last)
        return jax.vmap(lambda row, at: row.at[at].get(mode="promise_in_bounds"))(inputs, rows)

    return read(lower) * (1 - fraction) + read(lower + 1) * fraction


def feature_mask(
    key: Key[Array, ""], inputs: Float[Array, "n *shape"], strength: Strength
) -> Float[Array, "n *shape"]:
    """Sets each feature of each example to 0, its mean after scaling, with a probability.

    Args:
      key: a random key, used once.
      inputs: a batch; of [n, time, channels], a channel is masked over all of its time.
      strength: the probability.
    """
    shape = inputs.shape if inputs.ndim == 2 else per_channel(inputs.shape)
    return jnp.where(jax.random.uniform(key, shape) < strength, 0, inputs)


def time_mask(
    key: Key[Array, ""], inputs: Float[Array, "n time *channels"], strength: Strength
) -> Float[Array, "n time *channels"]:
    """Sets one span of each example to 0, in all of its channels.

    Width and start are uniform over the whole numbers, the width from 0 to ``strength · time``.

    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
    2017, in one dimension.

    Args:
      key: a random key, used once.
      inputs: a batch of sequences.
      strength: the widest span, as a share of the length.
    """
    length = inputs.shape[1]
    hidden = spans(*draw_spans(key, (len(inputs), 1), length, strength), length)
    return jnp.where(along_time(hidden, inputs), 0, inputs)


def draw_spans(
    key: Key[Array, ""], shape: tuple[int, int], length: int, strength: Strength
) -> tuple[Int[Array, "n count"], Int[Array, "n count"]]:
    """Draws where spans start and how wide they are: from 0 to ``strength · length``, all inside.

    Args:
      key: a random key, used once.
      shape: examples, and spans in each.
      length: the length of the axis.
      strength: the widest span, as a share of the length.

    Returns:
      Starts and widths.
    """
    width_draws, start_draws = jax.random.uniform(key, (2, *shape))
    widths = jnp.floor(width_draws * (jnp.floor(strength * length) + 1))
    starts = jnp.floor(start_draws * (length - widths + 1))
    return starts.astype(jnp.int32), widths.astype(jnp.int32)


def spans(
    starts: Int[Array, "n count"], widths: Int[Array, "n count"], length: int
) -> Bool[Array, "n length"]:
    """Returns which positions lie in any of an example's spans.

    Args:
      starts: the first position of each span.
      widths: how many positions it covers.
      length: the length of the axis.

    Example:
      >>> print(spans(jnp.array([[1, 3]]), jnp.array([[1, 2]]), 5).astype(int))
      [[0 1 0 1 1]]
    """
    positions = jnp.arange(length)
    after = positions >= starts[..., None]
    return jnp.any(after & (positions < (starts + widths)[..., None]), axis=1)


def unless_zero(
    strength: Strength, changed: Float[Array, "n *shape"], inputs: Float[Array, "n *shape"]
) -> Float[Array, "n *shape"]:
    """Returns what was changed, in the inputs' dtype, or at strength 0 the inputs to the bit."""
    return jnp.where(strength > 0, changed.astype(inputs.dtype), inputs)


def each(values: Float[Array, " n"], inputs: Float[Array, "n *shape"]) -> Array:
    """Returns one value an example, shaped to meet all of the inputs'."""
    return values.reshape(-1, *[1] * (inputs.ndim - 1))


def along_time(
    values: Float[Array, "n time"] | Bool[Array, "n time"], inputs: Float[Array, "n time *channels"]
) -> Array:
    """Returns one value a position, shaped to meet every channel of the inputs."""
    return values.reshape(*values.shape, *[1] * (inputs.ndim - values.ndim))


def per_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one value an example and channel.

    Example:
      >>> per_channel((8, 100)), per_channel((8, 100, 3))
      ((8, 1), (8, 1, 3))
    """
    n, *middle, channels = shape
    return (n, 1) if not middle else (n, *[1] * len(middle), channels)


SEQUENCE = {
    "jitter": Augmentation(jitter, "standard deviation of the noise added to each value", None),
    "scaling": Augmentation(scaling, "standard deviation of each example's factor", None),
    "time_shift": Augmentation(time_shift, "largest shift, as a share of the length"),
    "time_warp": Augmentation(time_warp, "largest relative change of speed"),
    "time_mask": Augmentation(time_mask, "widest span set to 0, as a share of the length"),
    "feature_mask": Augmentation(feature_mask, "probability that a feature is set to 0"),
}
"""Name → augmentation of sequences, and of tables where it does not speak of time."""
