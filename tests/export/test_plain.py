"""Functions as flat, plain operations: the same numbers, and nothing that converters lack."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jdlopt.export.plain import erf, operations, plain

X = jnp.linspace(-1.0, 2.0, 12).reshape(4, 3)


def kinds(function, *inputs):
    return {name for name, _ in operations(jax.make_jaxpr(function)(*inputs).jaxpr)}


def backwards(x):
    def step(total, row):
        total = total * 0.5 + row
        return total, total.sum()

    return jax.lax.scan(step, jnp.zeros(3), x, reverse=True)


def test_loops_run_forwards_or_are_written_out():
    expected = backwards(X)
    for unrolled in (0, 4):
        found = plain(backwards, unrolled=unrolled)
        jax.tree.map(np.testing.assert_allclose, found(X), expected)
        assert ("scan" in kinds(found, X)) == (unrolled == 0)


def test_choices_by_platform_calls_and_constants_are_gone():
    def function(x):
        chosen = jax.lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos)
        table = jax.jit(lambda: jnp.exp(jnp.arange(3.0)))()
        return jax.checkpoint(jax.nn.relu)(chosen) * table

    found = plain(function)
    assert kinds(found, X) - {"broadcast_in_dim"} == {"cos", "max", "mul"}
    expected = np.maximum(np.cos(X), 0) * np.exp(np.arange(3.0))
    np.testing.assert_allclose(found(X), expected, rtol=1e-6)


def test_a_spectrum_is_products_of_real_numbers():
    def power(x):
        found = jnp.fft.rfft(x)
        return jnp.square(found.real) + jnp.square(found.imag)

    waves = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    assert "fft" not in kinds(plain(power), waves)
    np.testing.assert_allclose(plain(power)(waves), power(waves), rtol=1e-4, atol=1e-4)


def test_the_error_function_by_exponentials():
    x = np.linspace(-5, 5, 1001).astype(np.float32)
    np.testing.assert_allclose(erf(jnp.asarray(x)), special.erf(x), atol=3e-7)
    assert kinds(plain(jax.lax.erf, instead={"erf": erf}), X).isdisjoint({"erf", "erfc"})
