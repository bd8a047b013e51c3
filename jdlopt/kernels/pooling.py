"""Pooling over channels-last arrays, without what XLA's CPU backend is slow at."""

from __future__ import annotations

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_UNROLLED = 16
"""Maxima of windows of at most this many values are taken slice by slice."""
_CHANNELS_LAST = "pooling takes (n, length, channels) or (n, height, width, channels)"


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Float[Array, "n *space channels"], size: int) -> Float[Array, "n *outs channels"]:
    """Takes the maximum of each non-overlapping window of ``size`` in every spatial dimension.

    What does not fill a window at the end is left out. The gradient goes to the window's first
    maximum, as in other libraries, without XLA's select-and-scatter (slow on the CPU).

    Example:
      >>> max_pool(jnp.array([3.0, 1.0, 2.0, 5.0, 9.0]).reshape(1, 5, 1), 2).ravel().tolist()
      [3.0, 5.0]
    """
    chex.assert_rank(x, {3, 4}, custom_message=_CHANNELS_LAST)
    if size ** (x.ndim - 2) > _UNROLLED:
        return _windows(x, size).max(axis=-2)
    return functools.reduce(jnp.maximum, _window_parts(x, size))


def _max_pool_forward(x: Array, size: int) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
    if size ** (x.ndim - 2) > _UNROLLED:
        windows = _windows(x, size)
        first = jnp.argmax(windows, axis=-2)
        return windows.max(axis=-2), (first.astype(jnp.int32), x.shape[1:-1])
    parts = _window_parts(x, size)
    y = functools.reduce(jnp.maximum, parts)
    index = jnp.full(y.shape, len(parts) - 1, jnp.uint8)
    for place in reversed(range(len(parts) - 1)):
        index = jnp.where(parts[place] == y, jnp.asarray(place, index.dtype), index)
    return y, (index, x.shape[1:-1])


def _max_pool_backward(size: int, saved: tuple[Array, tuple[int, ...]], dy: Array) -> tuple[Array]:
    index, space = saved
    rank = len(space)
    # (n, out, 1, out, 1, c) against the place of each value in its window: one pass writes dx.
    spread = tuple(range(2, 2 * rank + 1, 2))
    shape = [1] * (2 * rank + 2)
    place = jnp.zeros(shape, index.dtype)
    for axis in spread:
        shape[axis] = size
        steps = lax.broadcasted_iota(index.dtype, shape, axis)
        place = place * jnp.asarray(size, index.dtype) + steps
        shape[axis] = 1
    chosen = jnp.expand_dims(index, spread) == place
    dx = jnp.where(chosen, jnp.expand_dims(dy, spread), jnp.zeros((), dy.dtype))
    outs = dy.shape[1:-1]
    dx = dx.reshape(dy.shape[0], *(out * size for out in outs), dy.shape[-1])
    rest = [(0, full - out * size) for full, out in zip(space, outs, strict=True)]
    return (jnp.pad(dx, [(0, 0), *rest, (0, 0)]) if any(r[1] for r in rest) else dx,)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _window_parts(x: Array, size: int) -> list[Array]:
    outs = [full // size for full in x.shape[1:-1]]
    parts = []
    for offsets in itertools.product(range(size), repeat=len(outs)):
        stops = [offset + (out - 1) * size + 1 for offset, out in zip(offsets, outs, strict=True)]
        parts.append(
            lax.slice(
                x,
                (0, *offsets, 0),
                (x.shape[0], *stops, x.shape[-1]),
                (1, *(size,) * len(outs), 1),
            )
        )
    return parts


def _split(x: Array, size: int) -> Array:
    """Views whole windows as (n, out, size, out, size, channels), without what is left over."""
    outs = [full // size for full in x.shape[1:-1]]
    whole = lax.slice(x, (0,) * x.ndim, (x.shape[0], *(out * size for out in outs), x.shape[-1]))
    pairs = itertools.chain.from_iterable((out, size) for out in outs)
    return whole.reshape(x.shape[0], *pairs, x.shape[-1])


def _windows(x: Array, size: int) -> Array:
    split, rank = _split(x, size), x.ndim - 2
    inner = range(2, 2 * rank + 1, 2)
    grouped = split.transpose(0, *range(1, 2 * rank, 2), *inner, split.ndim - 1)
    return grouped.reshape(*grouped.shape[: rank + 1], size**rank, x.shape[-1])


def average_pool(
    x: Float[Array, "n *space channels"], size: int
) -> Float[Array, "n *outs channels"]:
    """Takes the mean of each non-overlapping window of ``size`` in every spatial dimension.

    Example:
      >>> average_pool(jnp.array([3.0, 1.0, 2.0, 5.0, 9.0]).reshape(1, 5, 1), 2).ravel().tolist()
      [2.0, 3.5]
    """
    chex.assert_rank(x, {3, 4}, custom_message=_CHANNELS_LAST)
    return _split(x, size).mean(axis=tuple(range(2, 2 * (x.ndim - 2) + 1, 2)))
