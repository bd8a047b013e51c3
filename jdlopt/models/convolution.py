"""Convolution and pooling over channels-last arrays, fast on the CPU and `lax` on accelerators.

XLA's CPU backend runs a forward convolution well, but its gradients (and any convolution with few
channels) badly, above all inside a loop. On the CPU each of the three products is therefore
written in the form that measured fastest for its shape:

| product         | 1-D, or small windows (`_PATCH`) | otherwise                              |
|-----------------|----------------------------------|----------------------------------------|
| outputs         | patches and one matmul           | `lax` convolution                      |
| input gradient  | its transpose                    | `lax` with the flipped kernel (stride  |
|                 |                                  | 1), else a matmul and shifted sums     |
| kernel gradient | patches and one matmul           | one matmul for each tap of the kernel  |

The choice is made where a program is lowered: one lowered for a GPU or TPU, even on a host without
one, holds the convolution of `lax`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_PATCH = 64
"""Windows of at most this many values (taps × input channels) are gathered as patches."""

_UNROLLED = 16
"""Maxima of windows of at most this many values are taken slice by slice."""

_LANES = 8
"""Numbers in a CPU's vector register."""

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}

Padding = str | Sequence[tuple[int, int]]


class Window(NamedTuple):
    """How a kernel moves: static, hashable."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


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


def window_of(
    space: tuple[int, ...], taps: tuple[int, ...], strides: int | Sequence[int], padding: Padding
) -> Window:
    """Returns how a kernel of so many taps moves over inputs of such a size."""
    steps = (strides,) * len(taps) if isinstance(strides, int) else tuple(strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(space, taps, steps, padding)
    return Window(steps, tuple((int(low), int(high)) for low, high in padding))


def met_by_taps(
    x: Float[Array, "n *space channels"], taps: tuple[int, ...], window: Window
) -> Iterator[Float[Array, "n *outs channels"]]:
    """Yields, tap by tap, the inputs that a kernel's tap meets at each output."""
    padded, outs = _padded(x, taps, window)
    for tap in itertools.product(*map(range, taps)):
        stop = [t + (o - 1) * s + 1 for t, o, s in zip(tap, outs, window.strides, strict=True)]
        yield lax.slice(
            padded, (0, *tap, 0), (x.shape[0], *stop, x.shape[-1]), (1, *window.strides, 1)
        )


# --- the three products of one trilinear form, each the others' derivative ------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _outputs(x: Array, kernel: Array, window: Window) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_cpu_outputs, window=window),
        default=functools.partial(_lax_outputs, window=window),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        dy,
        kernel,
        cpu=functools.partial(_cpu_input_gradient, window=window, space=space),
        default=functools.partial(_transposed_input, _lax_outputs, window=window, space=space),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        x,
        dy,
        cpu=functools.partial(_cpu_kernel_gradient, window=window, taps=taps),
        default=functools.partial(_lax_kernel_gradient, window=window, taps=taps),
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


# --- everywhere but on the CPU --------------------------------------------------------------------


def _lax_outputs(x: Array, kernel: Array, window: Window) -> Array:
    return lax.conv_general_dilated(
        x, kernel, window.strides, window.padding, dimension_numbers=LAYOUTS[kernel.ndim - 2]
    )


def _transposed_input(
    forward: Callable[..., Array], dy: Array, kernel: Array, window: Window, space: tuple[int, ...]
) -> Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *space, kernel.shape[-2]), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, kernel, window=window), x)(dy)[0]


def _lax_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    kernel = jax.ShapeDtypeStruct((*taps, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: _lax_outputs(x, k, window), kernel)(dy)[0]


# --- on the CPU -----------------------------------------------------------------------------------


def _gathers(taps: tuple[int, ...], channels: int) -> bool:
    return len(taps) == 1 or math.prod(taps) * channels <= _PATCH


def _cpu_outputs(x: Array, kernel: Array, window: Window) -> Array:
    features = kernel.shape[-1]
    if _gathers(kernel.shape[:-2], kernel.shape[-2]):
        # 1000×125 by 125×25 takes 118 µs on a core, by 125×32 only 67: whole vectors
        spare = -features % _LANES if features > _LANES else 0
        kernel = jnp.pad(kernel, [(0, 0)] * (kernel.ndim - 1) + [(0, spare)])
        return _patch_outputs(x, kernel, window)[..., :features]
    return _unbatched_kernel(window)(x, kernel)


def _cpu_input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    taps, channels = kernel.shape[:-2], kernel.shape[-2]
    if _gathers(taps, channels) or any(step > 1 for step in window.strides):
        return _transposed_input(_patch_outputs, dy, kernel, window, space)
    flipped = jnp.flip(kernel, range(len(taps))).swapaxes(-1, -2)
    reach = tuple(
        (size - 1 - low, size - 1 - high)
        for size, (low, high) in zip(taps, window.padding, strict=True)
    )
    return _unbatched_kernel(Window(window.strides, reach))(dy, flipped)


def _cpu_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    shape = (*taps, x.shape[-1], dy.shape[-1])
    rows = dy.reshape(-1, dy.shape[-1])
    if _gathers(taps, x.shape[-1]):
        patches = _patches(x, taps, window)
        return (patches.reshape(-1, patches.shape[-1]).T @ rows).reshape(shape)
    products = [part.reshape(-1, x.shape[-1]).T @ rows for part in met_by_taps(x, taps, window)]
    return jnp.stack(products).reshape(shape)


def _padded(x: Array, taps: tuple[int, ...], window: Window) -> tuple[Array, tuple[int, ...]]:
    borders = [(0, 0, 0), *((low, high, 0) for low, high in window.padding), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), borders)
    outs = tuple(
        (size - tap) // step + 1
        for size, tap, step in zip(padded.shape[1:-1], taps, window.strides, strict=True)
    )
    return padded, outs


def _patches(x: Array, taps: tuple[int, ...], window: Window) -> Array:
    """Gathers each output's window, one dimension after the other: long copies, few slices."""
    padded, outs = _padded(x, taps, window)
    for axis in reversed(range(len(taps))):
        last = (outs[axis] - 1) * window.strides[axis] + 1
        padded = jnp.concatenate(
            [
                lax.slice_in_dim(padded, tap, tap + last, window.strides[axis], axis + 1)
                for tap in range(taps[axis])
            ],
            axis=-1,
        )
    return padded


def _patch_outputs(x: Array, kernel: Array, window: Window) -> Array:
    patches = _patches(x, kernel.shape[:-2], window)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    flat = patches.reshape(-1, patches.shape[-1]) @ matrix
    return flat.reshape(*patches.shape[:-1], kernel.shape[-1])


@functools.cache
def _unbatched_kernel(window: Window) -> Callable[[Array, Array], Array]:
    """Returns the convolution of `lax` that under `vmap` never becomes a grouped one.

    The CPU's grouped convolution is many times slower than one convolution after the other.
    """

    @jax.custom_batching.custom_vmap
    def run(x: Array, kernel: Array) -> Array:
        return _lax_outputs(x, kernel, window)

    @run.def_vmap
    def batched(
        axis_size: int, in_batched: list[bool], x: Array, kernel: Array
    ) -> tuple[Array, bool]:
        if in_batched[1]:
            each = lambda k: run(x, k)  # noqa: E731
            ys = lax.map(lambda a: run(*a), (x, kernel)) if in_batched[0] else lax.map(each, kernel)
            return ys, True
        ys = run(x.reshape(-1, *x.shape[2:]), kernel)
        return ys.reshape(axis_size, -1, *ys.shape[1:]), True

    return run


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
