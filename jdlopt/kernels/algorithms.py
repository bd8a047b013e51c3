"""The three products of a convolution in the algorithms that are fast on a CPU.

A convolution is linear in its inputs and in its kernel, so it and its two gradients are three
products of one trilinear form. On the CPU two algorithms make all of them, the same numbers to
rounding, and the shapes alone decide which (`benchmarks/results/kernels.json`):

| product         | 1-D and 1×1 (`takes_patches`) | otherwise                                     |
|-----------------|-------------------------------|-----------------------------------------------|
| outputs         | patches and one matmul        | `lax` convolution                             |
| input gradient  | its transpose                 | `lax` with the flipped kernel; with strides,  |
|                 |                               | as on the left                                |
| kernel gradient | patches and a matmul for each part of the batch that fits the cache           |

XLA's CPU backend runs a forward convolution well, inside loops and outside. With its own gradients
a ResNet's step takes 1.2 times as long when called from Python, and 45 times inside a loop. A
grouped convolution, what a `vmap` over kernels becomes, is slower than one convolution after the
other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LANES = 8
"""Numbers in a CPU's vector register."""

_CACHED = 5 * 2**19
"""Bytes of patches that are made at once, to stay in a core's cache: 4 patches of 32×32 and 16
channels were faster than 1 or 16."""

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}

Padding = str | Sequence[tuple[int, int]]


class Window(NamedTuple):
    """How a kernel moves: static, hashable."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


def window_of(
    space: tuple[int, ...], taps: tuple[int, ...], strides: int | Sequence[int], padding: Padding
) -> Window:
    """Returns how a kernel of so many taps moves over inputs of such a size."""
    steps = (strides,) * len(taps) if isinstance(strides, int) else tuple(strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(space, taps, steps, padding)
    return Window(steps, tuple((int(low), int(high)) for low, high in padding))


def takes_patches(taps: tuple[int, ...]) -> bool:
    """Returns whether gathering the windows and one matmul beats XLA's convolution on the CPU.

    So it is over one dimension, and where a window is a single place.
    """
    return len(taps) == 1 or math.prod(taps) == 1


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


# --- as `lax` has them: on accelerators -----------------------------------------------------------


def lax_outputs(x: Array, kernel: Array, window: Window) -> Array:
    """Returns the convolution of `lax`."""
    return lax.conv_general_dilated(
        x, kernel, window.strides, window.padding, dimension_numbers=LAYOUTS[kernel.ndim - 2]
    )


def lax_input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    """Returns what `jax.grad` makes of the convolution of `lax` for its inputs."""
    return _transposed(lax_outputs, dy, kernel, window, space)


def lax_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    """Returns what `jax.grad` makes of the convolution of `lax` for its kernel."""
    kernel = jax.ShapeDtypeStruct((*taps, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: lax_outputs(x, k, window), kernel)(dy)[0]


def _transposed(
    forward: Callable[..., Array], dy: Array, kernel: Array, window: Window, space: tuple[int, ...]
) -> Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *space, kernel.shape[-2]), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, kernel, window), x)(dy)[0]


# --- on the CPU -----------------------------------------------------------------------------------


def cpu_outputs(x: Array, kernel: Array, window: Window) -> Array:
    """Returns the convolution by patches or by `lax`, as its shapes ask."""
    if takes_patches(kernel.shape[:-2]):
        return _patch_outputs(x, kernel, window)
    return _ungrouped_outputs(x, kernel, window)


def cpu_input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    """Returns the inputs' gradient by patches or by `lax`, as the shapes ask.

    For a kernel that moves by 1 it is a forward convolution with the flipped kernel.
    """
    taps = kernel.shape[:-2]
    if takes_patches(taps) or any(step > 1 for step in window.strides):
        return _transposed(_patch_outputs, dy, kernel, window, space)
    flipped = jnp.flip(kernel, range(len(taps))).swapaxes(-1, -2)
    reach = tuple(
        (tap - 1 - low, size + low - length)
        for size, tap, length, (low, _) in zip(
            space, taps, dy.shape[1:-1], window.padding, strict=True
        )
    )
    return _ungrouped_outputs(dy, flipped, Window(window.strides, reach))


def cpu_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    """Returns the kernel's gradient: patches and a matmul for each part of the batch, added up.

    A part is as many examples as have patches that fit the cache, of those counts that divide the
    batch. Parts are added in float32 or wider.
    """
    examples = x.shape[0]
    each = math.prod(dy.shape[1:-1]) * math.prod(taps) * x.shape[-1] * x.dtype.itemsize
    most = min(examples, max(1, _CACHED // max(1, each)))
    size = max(size for size in range(1, most + 1) if examples % size == 0)
    if size == examples:
        return _patch_kernel_gradient(x, dy, window, taps)

    def add(total: Array, part: tuple[Array, ...]) -> tuple[Array, None]:
        return total + _patch_kernel_gradient(part[0], part[1], window, taps), None

    @jax.custom_batching.custom_vmap
    def in_parts(x: Array, dy: Array) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        zeros = jnp.zeros((*taps, x.shape[-1], dy.shape[-1]), wide)
        parts = tuple(array.reshape(-1, size, *array.shape[1:]) for array in (x, dy))
        return lax.scan(add, zeros, parts)[0].astype(x.dtype)

    @in_parts.def_vmap
    def one_by_one(
        axis_size: int, in_batched: list[bool], x: Array, dy: Array
    ) -> tuple[Array, bool]:
        # parts of all kernels at once would not fit the cache
        return _mapped(in_parts, in_batched, x, dy), True

    return in_parts(x, dy)


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
    features = kernel.shape[-1]
    # 1000×125 by 125×25 takes 118 µs on a core, by 125×32 only 67: whole vectors
    spare = -features % _LANES if features > _LANES else 0
    matrix = jnp.pad(kernel.reshape(-1, features), [(0, 0), (0, spare)])
    flat = patches.reshape(-1, patches.shape[-1]) @ matrix
    return flat.reshape(*patches.shape[:-1], -1)[..., :features]


def _patch_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    patches = _patches(x, taps, window)
    flat = patches.reshape(-1, patches.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])
    return flat.reshape(*taps, x.shape[-1], dy.shape[-1])


def _ungrouped_outputs(x: Array, kernel: Array, window: Window) -> Array:
    """The convolution of `lax` that under `vmap` never becomes a grouped one."""

    @jax.custom_batching.custom_vmap
    def run(x: Array, kernel: Array) -> Array:
        return lax_outputs(x, kernel, window)

    @run.def_vmap
    def batched(
        axis_size: int, in_batched: list[bool], x: Array, kernel: Array
    ) -> tuple[Array, bool]:
        if in_batched[1]:
            return _mapped(run, in_batched, x, kernel), True
        ys = run(x.reshape(-1, *x.shape[2:]), kernel)
        return ys.reshape(axis_size, -1, *ys.shape[1:]), True

    return run(x, kernel)


def _mapped(
    run: Callable[[Array, Array], Array], in_batched: Sequence[bool], first: Array, second: Array
) -> Array:
    """Runs over the leading axis of the arguments that have one, one after the other."""
    if all(in_batched):
        return lax.map(lambda both: run(*both), (first, second))
    if in_batched[0]:
        return lax.map(lambda one: run(one, second), first)
    return lax.map(lambda one: run(first, one), second)
