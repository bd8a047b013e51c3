"""Depthwise convolution on the CPU against `lax`, gradients included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jdlopt.kernels.algorithms import LAYOUTS
from jdlopt.kernels.depthwise import depthwise


def pulled(call, x, kernel):
    @jax.jit
    def both(x, kernel):
        outputs, pull = jax.vjp(call, x, kernel)
        return outputs, pull(jax.random.normal(jax.random.key(2), outputs.shape))

    return both(x, kernel)


@pytest.mark.parametrize(
    ("shape", "taps", "strides", "padding"),
    [
        ((2, 5, 7, 3), (3, 3), (1, 1), "SAME"),
        ((2, 6, 7, 3), (5, 3), (2, 3), "SAME"),
        ((2, 8, 8, 3), (3, 2), (2, 2), "VALID"),
        ((2, 6, 5, 3), (2, 2), (2, 1), ((2, 1), (0, 3))),
        ((2, 9, 3), (4,), (2,), "SAME"),
    ],
)
def test_equals_laxs_grouped_convolution(shape, taps, strides, padding):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (*taps, 1, 3))

    def grouped(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=LAYOUTS[len(taps)], feature_group_count=3
        )

    found = pulled(lambda x, kernel: depthwise(x, kernel, strides, padding), x, kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, pulled(grouped, x, kernel)
    )


def test_half_precision_is_summed_in_float32():
    x = jnp.ones((1, 6, 6, 2), jnp.bfloat16)
    kernel = jnp.ones((5, 5, 1, 2), jnp.bfloat16).at[0, 0].set(256)
    outputs = jax.jit(lambda x: depthwise(x, kernel, padding="VALID"))(x)
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        outputs.astype(jnp.float32), 280.0
    )  # in eight bits 256 + 1 is 256


def test_programs_hold_what_is_fast_for_their_device():
    def text(platform):
        x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
        gradient = jax.jit(jax.grad(lambda x, kernel: depthwise(x, kernel).sum(), (0, 1)))
        return gradient.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

    assert "convolution" in text("cuda")
    assert "convolution" not in text("cpu")


def test_a_kernel_of_another_width_is_refused(unchecked_types):
    with pytest.raises(ValueError, match=r"takes a kernel \(taps…, 1, 3\)"):
        depthwise(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 1)))
