"""Pooling equals `lax.reduce_window` and its gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jdlopt.kernels.pooling import average_pool, max_pool


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 6, 9, 3)])
@pytest.mark.parametrize("size", [2, 3])
def test_max_pool_equals_reduce_window(shape, size):
    def window(x):
        sizes = (1, *(size,) * (len(shape) - 2), 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, sizes, "VALID")

    # Small integers: many ties, whose gradient must go to the first as select-and-scatter does.
    x = jax.random.randint(jax.random.key(0), shape, 0, 3).astype(jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def products(pool, x):
        y, pull = jax.vjp(pool, x)
        return y, pull(normal(1, y.shape))[0]

    pairs = zip(products(lambda x: max_pool(x, size), x), products(window, x), strict=True)
    for actual, expected in pairs:
        np.testing.assert_array_equal(actual, expected)


def test_max_pool_under_vmap_and_of_wide_windows():
    x = normal(0, (2, 3, 17, 17, 2))
    gradient = jax.jit(jax.grad(lambda x: (max_pool(x, 17) ** 2).sum()))
    batched = jax.jit(jax.vmap(gradient))(x)
    np.testing.assert_array_equal(batched[1], gradient(x[1]))
    top = x.max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(batched, jnp.where(x == top, 2 * x, 0.0))


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 6, 9, 3)])
def test_average_pool_equals_reduce_window(shape):
    x, sizes = normal(0, shape), (1, *(2,) * (len(shape) - 2), 1)
    expected = lax.reduce_window(x, 0.0, lax.add, sizes, sizes, "VALID") / 2 ** (len(shape) - 2)
    np.testing.assert_allclose(average_pool(x, 2), expected, atol=1e-6)
