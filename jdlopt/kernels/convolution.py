"""Convolution over channels-last arrays, fast on the CPU and `lax` on accelerators.

The choice is made where a program is lowered: one lowered for a GPU or TPU, even on a host without
one, holds the convolution of `lax`; one for the CPU the algorithms of `jdlopt.kernels.algorithms`,
which follow from the shapes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
from jax import lax
from jaxtyping import Array, Float

from jdlopt.kernels.algorithms import (
    LAYOUTS,
    Padding,
    Window,
    cpu_input_gradient,
    cpu_kernel_gradient,
    cpu_outputs,
    lax_input_gradient,
    lax_kernel_gradient,
    lax_outputs,
    window_of,
)


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
      >>> import jax.numpy as jnp
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
        cpu=lambda x, kernel: cpu_outputs(x, kernel, window),
        default=lambda x, kernel: lax_outputs(x, kernel, window),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(dy: Array, kernel: Array, window: Window, space: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        dy,
        kernel,
        cpu=lambda dy, kernel: cpu_input_gradient(dy, kernel, window, space),
        default=lambda dy, kernel: lax_input_gradient(dy, kernel, window, space),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: Array, dy: Array, window: Window, taps: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        x,
        dy,
        cpu=lambda x, dy: cpu_kernel_gradient(x, dy, window, taps),
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
