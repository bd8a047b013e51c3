"""Convolution and pooling over channels-last arrays, fast on the CPU and `lax` on accelerators.

The choice is made where a program is lowered: one lowered for a GPU or TPU, even on a host without
one, holds the convolution of `lax`. For the CPU there are several formulations of each of the three
products, in `jdlopt.models.formulations`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jdlopt.models.convolution_choice import product_by_choice
from jdlopt.models.formulations import (
    LAYOUTS,
    Padding,
    Window,
    lax_input_gradient,
    lax_kernel_gradient,
    lax_outputs,
    window_of,
)

_UNROLLED = 16
"""Maxima of windows of at most this many values are taken slice by slice."""


def convolve(
    x: Float[Array, "n *space channels"],
    kernel: Float[Array, "*taps channels features"],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
) -> Float[Array, "n *outs features"]:
    """Convolves (cross-correlates, as all deep-learning libraries do) over one or two dimensions.

    Equal to `lax.conv_general_dilated` with channels last. Differentiable in reverse mode, to any
    order; forward mode is not supported. Kernels that a `vmap` batches are as fast as in a loop.

    Args:
      x: inputs, (n, length, channels) or (n, height, width, channels).
      kernel: taps by the spatial dimensions, then input channels, then features.
      strides: one for all dimensions, or one each.
      padding: "SAME", "VALID", or (low, high) for each dimension.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> convolve(x, jnp.ones((2, 1, 1)), padding="VALID").ravel().tolist()
      [1.0, 3.0, 5.0]
    """
    rank = kernel.ndim - 2
    if rank not in LAYOUTS or x.ndim != kernel.ndim:
        raise ValueError(
            f"convolve takes (n, length, channels) or (n, height, width, channels) and a kernel of "
            f"the same rank; it was given inputs {x.shape} and a kernel {kernel.shape}"
        )
    if x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"the inputs have {x.shape[-1]} channels, the kernel takes {kernel.shape[-2]}"
        )
    return _outputs(x, kernel, window_of(x.shape[1:-1], kernel.shape[:-2], strides, padding))


# --- the three products of one trilinear form, each the others' derivative ------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _outputs(x: Array, kernel: Array, window: Window) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: product_by_choice("outputs", x, kernel, window),
        default=lambda x, kernel: lax_outputs(x, kernel, window),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        dy,
        kernel,
        cpu=lambda dy, kernel: product_by_choice("input_gradient", dy, kernel, window, space),
        default=lambda dy, kernel: lax_input_gradient(dy, kernel, window, space),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        x,
        dy,
        cpu=lambda x, dy: product_by_choice("kernel_gradient", x, dy, window, taps),
        default=lambda x, dy: lax_kernel_gradient(x, dy, window, taps),
    )


_outputs.defvjp(
    lambda x, kernel, window: (_outputs(x, kernel, window), (x, kernel)),
    lambda window, saved, dy: (
        _input_gradient(dy, saved[1], window, saved[0].shape[1:-1]),
        _kernel_gradient(saved[0], dy, window, saved[1].shape[:-2]),
    ),
)
_input_gradient.defvjp(
    lambda dy, kernel, window, space: (
        _input_gradient(dy, kernel, window, space),
        (dy, kernel),
    ),
    lambda window, space, saved, dx: (
        _outputs(dx, saved[1], window),
        _kernel_gradient(dx, saved[0], window, saved[1].shape[:-2]),
    ),
)
_kernel_gradient.defvjp(
    lambda x, dy, window, taps: (_kernel_gradient(x, dy, window, taps), (x, dy)),
    lambda window, taps, saved, dk: (
        _input_gradient(saved[1], dk, window, saved[0].shape[1:-1]),
        _outputs(saved[0], dk, window),
    ),
)


# --- pooling --------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Float[Array, "n *space channels"], size: int) -> Float[Array, "n *outs channels"]:
    """Takes the maximum of each non-overlapping window of ``size`` in every spatial dimension.

    What does not fill a window at the end is left out. The gradient goes to the window's first
    maximum, as in other libraries, without XLA's select-and-scatter (slow on the CPU).

    Example:
      >>> max_pool(jnp.array([3.0, 1.0, 2.0, 5.0, 9.0]).reshape(1, 5, 1), 2).ravel().tolist()
      [3.0, 5.0]
    """
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
    return _split(x, size).mean(axis=tuple(range(2, 2 * (x.ndim - 2) + 1, 2)))
