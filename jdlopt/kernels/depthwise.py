"""Depthwise convolution: each channel by itself; fast on the CPU and `lax` on accelerators.

XLA's CPU backend runs a grouped convolution, and above all its gradients, channel by channel. Here
it is the sum over the taps of the inputs that each meets, times its weights, which XLA makes one
vectorised loop of. The input gradient is the same sum, of the flipped kernel over the output
gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jdlopt.kernels.algorithms import LAYOUTS, Padding, Window, met_by_taps, window_of


def depthwise(
    x: Float[Array, "n *space channels"],
    kernel: Float[Array, "*taps 1 channels"],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
) -> Float[Array, "n *outs channels"]:
    """Convolves each channel with its own kernel, over one or two dimensions.

    Equal to `lax.conv_general_dilated` with channels last and as many groups as channels. Reverse
    mode only, to any order. Half-precision products are summed in float32.

    Args:
      x: inputs, (n, length, channels) or (n, height, width, channels).
      kernel: taps by the spatial dimensions, then 1, then the channels.
      strides: one for all dimensions, or one each.
      padding: "SAME", "VALID", or (low, high) for each dimension.

    Example:
      >>> x = jnp.arange(6.0).reshape(1, 3, 2)
      >>> kernel = jnp.array([[1.0, 10.0], [1.0, 0.0]]).reshape(2, 1, 2)
      >>> depthwise(x, kernel, padding="VALID")[0].tolist()
      [[2.0, 10.0], [6.0, 30.0]]
    """
    if x.ndim != kernel.ndim or kernel.shape[-2:] != (1, x.shape[-1]):
        raise ValueError(
            f"depthwise takes a kernel (taps…, 1, {x.shape[-1]}) over inputs {x.shape}; it was "
            f"given one of {kernel.shape}"
        )
    window = window_of(x.shape[1:-1], kernel.shape[:-2], strides, padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted(x, kernel, window),
        default=lambda x, kernel: _grouped(x, kernel, window),
    )


def _grouped(x: Array, kernel: Array, window: Window) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        dimension_numbers=LAYOUTS[kernel.ndim - 2],
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(x: Array, kernel: Array, window: Window) -> Array:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    parts = met_by_taps(x, kernel.shape[:-2], window)
    weights = kernel.reshape(-1, kernel.shape[-1]).astype(wide)
    products = (part.astype(wide) * weight for part, weight in zip(parts, weights, strict=True))
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _shifted_backward(window: Window, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    wide, taps = jnp.promote_types(x.dtype, jnp.float32), kernel.shape[:-2]
    parts = met_by_taps(x, taps, window)
    seen = tuple(range(x.ndim - 1))
    sums = [(part.astype(wide) * dy.astype(wide)).sum(axis=seen) for part in parts]
    dk = jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
    return _input_gradient(dy, kernel, window, x.shape[1:-1]), dk


def _input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    """Spreads the output gradient by the strides; the flipped kernel then moves by one."""
    borders, taps = [(0, 0, 0)], kernel.shape[:-2]
    for size, tap, out, step, (low, _) in zip(
        space, taps, dy.shape[1:-1], window.strides, window.padding, strict=True
    ):
        before = tap - 1 - low
        borders.append((before, size + tap - 1 - before - ((out - 1) * step + 1), step - 1))
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), [*borders, (0, 0, 0)])
    flipped = jnp.flip(kernel, range(len(taps)))
    return _shifted(spread, flipped, Window((1,) * len(taps), ((0, 0),) * len(taps)))


_shifted.defvjp(
    lambda x, kernel, window: (_shifted(x, kernel, window), (x, kernel)), _shifted_backward
)
