"""What augmentations of sequences do, their draws given: shifts, warps of time, spans."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Inputs


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


def draw_spans(
    key: Key[Array, ""], shape: tuple[int, int], length: int, strength: Scalar
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


def without_order(inputs: Inputs) -> str | None:
    """Says why what speaks of time can't help on a table."""
    return "A table's columns have no order." if inputs.kind == "table" else None
