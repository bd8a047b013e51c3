"""The three products of a convolution, each in several formulations: the same numbers, other speed.

XLA's CPU backend runs a forward convolution well where it has 32 features or more, but its
gradients (and any convolution with few channels) badly, above all inside a loop. On the CPU each
product is therefore written in the form that is fastest for its shape: as measured
(`jdlopt.models.convolution_choice`), or by rule:

| product         | 1-D, or small windows (`_PATCH`) | otherwise                              |
|-----------------|----------------------------------|----------------------------------------|
| outputs         | patches and one matmul           | `lax` convolution                      |
| input gradient  | its transpose                    | `lax` with the flipped kernel (stride  |
|                 |                                  | 1), else a matmul and shifted sums     |
| kernel gradient | patches and one matmul           | one matmul for each tap of the kernel  |
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_PATCH = 64
"""Windows of at most this many values (taps × input channels) are gathered as patches."""

_LANES = 8
"""Numbers in a CPU's vector register."""

_NARROW = 32
"""With fewer features, XLA's convolution is not its fast one."""

_CACHED = 5 * 2**19
"""Bytes that a part of a batch may take where it is to stay in a core's cache: 4 patches of 32×32
and 16 channels were faster than 1 or 16."""

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}

Padding = str | Sequence[tuple[int, int]]


class Window(NamedTuple):
    """How a kernel moves: static, hashable."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


class Unsuited(ValueError):
    """A formulation is not for a shape."""


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


# --- as `lax` has them ----------------------------------------------------------------------------


def lax_outputs(x: Array, kernel: Array, window: Window) -> Array:
    """The convolution of `lax`."""
    return lax.conv_general_dilated(
        x, kernel, window.strides, window.padding, dimension_numbers=LAYOUTS[kernel.ndim - 2]
    )


def _transposed_input(
    forward: Callable[..., Array], dy: Array, kernel: Array, window: Window, space: tuple[int, ...]
) -> Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *space, kernel.shape[-2]), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, kernel, window), x)(dy)[0]


lax_input_gradient = functools.partial(_transposed_input, lax_outputs)
"""``(dy, kernel, window, space)``: what `jax.grad` makes of the convolution of `lax`."""


def lax_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    """What `jax.grad` makes of the convolution of `lax`."""
    kernel = jax.ShapeDtypeStruct((*taps, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: lax_outputs(x, k, window), kernel)(dy)[0]


# --- as matmuls -----------------------------------------------------------------------------------


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


def _tap_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    rows = dy.reshape(-1, dy.shape[-1])
    products = [part.reshape(-1, x.shape[-1]).T @ rows for part in met_by_taps(x, taps, window)]
    return jnp.stack(products).reshape(*taps, x.shape[-1], dy.shape[-1])


def _turned_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    """One matmul for each row of taps, over inputs whose batch comes last.

    Both arrays are transposed once, so that each tap's part is copied in long runs and no matmul
    has to transpose what it is given.
    """
    if len(taps) != 2:
        raise Unsuited("for two dimensions")
    turned = lax.pad(
        x.transpose(3, 1, 2, 0),
        jnp.zeros((), x.dtype),
        [(0, 0, 0), *((low, high, 0) for low, high in window.padding), (0, 0, 0)],
    )
    # XLA would fold the transpositions into the matmuls again
    turned, rows = lax.optimization_barrier((turned, dy.transpose(1, 2, 0, 3)))
    (down, right), (height, width) = window.strides, dy.shape[1:-1]
    products = []
    for row in range(taps[0]):
        parts = [
            lax.slice(
                turned,
                (0, row, tap, 0),
                (
                    turned.shape[0],
                    row + (height - 1) * down + 1,
                    tap + (width - 1) * right + 1,
                    turned.shape[3],
                ),
                (1, down, right, 1),
            )
            for tap in range(taps[1])
        ]
        patches = jnp.concatenate(parts).reshape(taps[1] * x.shape[-1], -1)
        products.append(patches @ rows.reshape(-1, dy.shape[-1]))
    return jnp.stack(products).reshape(*taps, x.shape[-1], dy.shape[-1])


# --- in parts that stay in the cache --------------------------------------------------------------


def _parts(bytes_each: int, *arrays: Array) -> list[Array]:
    """Splits a batch into as few equal parts as fit the cache: (parts, examples, …)."""
    examples = arrays[0].shape[0]
    most = max(1, _CACHED // max(1, bytes_each))
    size = max(size for size in range(1, min(most, examples) + 1) if examples % size == 0)
    if size == examples:
        raise Unsuited("the batch fits the cache as it is")
    return [array.reshape(-1, size, *array.shape[1:]) for array in arrays]


def _chunked_kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    """Patches and one matmul for each part of the batch, added up."""
    patch = math.prod(dy.shape[1:-1]) * math.prod(taps) * x.shape[-1] * x.dtype.itemsize

    def add(total: Array, part: list[Array]) -> tuple[Array, None]:
        return total + _patch_kernel_gradient(part[0], part[1], window, taps), None

    zeros = jnp.zeros((*taps, x.shape[-1], dy.shape[-1]), x.dtype)
    return lax.scan(add, zeros, _parts(patch, x, dy))[0]


def _winograd_outputs(x: Array, kernel: Array, window: Window) -> Array:
    """3×3 kernels that move by 1, in 4 multiplications for each output instead of 9.

    Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016: ``F(2×2, 3×3)``.
    """
    if kernel.shape[:-2] != (3, 3) or window.strides != (1, 1) or x.dtype.itemsize < 4:
        raise Unsuited("for 3×3 kernels that move by 1, in float32")
    pads = [sum(pads) for pads in window.padding]
    if any((size + pad) % 2 for size, pad in zip(x.shape[1:-1], pads, strict=True)):
        raise Unsuited("for an even number of outputs")
    weights = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], x.dtype) / 2
    spread = jnp.einsum("ia,abcf,jb->ijcf", weights, kernel, weights)
    each = 4 * math.prod(x.shape[1:]) * x.dtype.itemsize
    (parts,) = _parts(each, x)
    ys = lax.map(lambda part: _winograd_part(part, spread, window), parts)
    return ys.reshape(-1, *ys.shape[2:])


def _winograd_part(x: Array, spread: Array, window: Window) -> Array:
    padded, outs = _padded(x, (3, 3), window)
    tiles = (x.shape[0], outs[0] // 2, outs[1] // 2)

    def before(d: Sequence[Array]) -> list[Array]:
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    def after(m: Sequence[Array]) -> list[Array]:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    stop = [2 * count - 1 for count in tiles[1:]]
    rows = [
        before([padded[:, i : i + stop[0] : 2, j : j + stop[1] : 2] for j in range(4)])
        for i in range(4)
    ]
    columns = [before(column) for column in zip(*rows, strict=True)]
    inputs = jnp.stack([columns[j][i].reshape(-1, x.shape[-1]) for i in range(4) for j in range(4)])
    products = (inputs @ spread.reshape(16, *spread.shape[2:])).reshape(4, 4, *tiles, -1)
    half = [after(list(products[i])) for i in range(4)]
    ys = [after(column) for column in zip(*half, strict=True)]
    paired = jnp.stack([jnp.stack([ys[0][i], ys[1][i]], axis=3) for i in range(2)], axis=2)
    return paired.reshape(x.shape[0], *outs, -1)


# --- as `lax`, for kernels that a vmap may batch --------------------------------------------------


@functools.cache
def _unbatched_kernel(window: Window) -> Callable[[Array, Array], Array]:
    """Returns the convolution of `lax` that under `vmap` never becomes a grouped one.

    The CPU's grouped convolution is many times slower than one convolution after the other.
    """

    @jax.custom_batching.custom_vmap
    def run(x: Array, kernel: Array) -> Array:
        return lax_outputs(x, kernel, window)

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


def _loop_outputs(x: Array, kernel: Array, window: Window) -> Array:
    return _unbatched_kernel(window)(x, kernel)


def _paired_outputs(x: Array, kernel: Array, window: Window) -> Array:
    """Two neighbouring outputs as one of twice the features, in a kernel a stride wider.

    A third more multiplications for a 3×3 kernel, in the faster of XLA's convolutions.
    """
    taps, features, step = kernel.shape[:-2], kernel.shape[-1], window.strides[-1]
    outs = (x.shape[-2] + sum(window.padding[-1]) - taps[-1]) // step + 1
    if len(taps) != 2 or features >= _NARROW or outs % 2:
        raise Unsuited("for few features and an even number of outputs in a row")
    first, second = ([(0, 0), (left, step - left), (0, 0), (0, 0)] for left in (0, step))
    wide = jnp.concatenate([jnp.pad(kernel, first), jnp.pad(kernel, second)], axis=-1)
    ys = _loop_outputs(x, wide, Window((window.strides[0], 2 * step), window.padding))
    return ys.reshape(*ys.shape[:2], outs, features)


def _flipped(forward: Callable[[Array, Array, Window], Array]) -> Callable[..., Array]:
    """Returns the input gradient as a forward product with the flipped kernel.

    Strides put zeros between the output gradients: some multiplications are in vain, but the
    product is one that is fast.
    """

    def input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
        taps = kernel.shape[:-2]
        flipped = jnp.flip(kernel, range(len(taps))).swapaxes(-1, -2)
        between = [(0, 0, step - 1) for step in window.strides]
        spread = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *between, (0, 0, 0)])
        reach = tuple(
            (tap - 1 - low, size + low - length)
            for size, tap, length, (low, _) in zip(
                space, taps, spread.shape[1:-1], window.padding, strict=True
            )
        )
        return forward(spread, flipped, Window((1,) * len(taps), reach))

    return input_gradient


# --- which there are, and which is taken unless one was measured ----------------------------------

FORMULATIONS: dict[str, dict[str, Callable[..., Array]]] = {
    "outputs": {
        "lax": _loop_outputs,
        "patches": _patch_outputs,
        "paired": _paired_outputs,
        "winograd": _winograd_outputs,
    },
    "input_gradient": {
        "flipped": _flipped(_loop_outputs),
        "patches": functools.partial(_transposed_input, _patch_outputs),
        "lax": lax_input_gradient,
        "paired": _flipped(_paired_outputs),
        "winograd": _flipped(_winograd_outputs),
    },
    "kernel_gradient": {
        "taps": _tap_kernel_gradient,
        "patches": _patch_kernel_gradient,
        "chunks": _chunked_kernel_gradient,
        "turned": _turned_kernel_gradient,
    },
}
"""By product, the ways to compute it: ``(x, kernel, window)``, ``(dy, kernel, window, space)`` and
``(x, dy, window, taps)``. One that is not for a shape raises `Unsuited`."""


def rule(product: str, taps: tuple[int, ...], channels: int, window: Window) -> str:
    """Returns the formulation of a product that is taken where none was measured.

    Args:
      product: a key of `FORMULATIONS`.
      taps: the kernel's size.
      channels: of the inputs.
      window: how the kernel moves.
    """
    if len(taps) == 1 or math.prod(taps) * channels <= _PATCH:
        return "patches"
    if product == "input_gradient":
        return "patches" if any(step > 1 for step in window.strides) else "flipped"
    return {"outputs": "lax", "kernel_gradient": "taps"}[product]
