"""Dropout's law, initialisers' variance, and batch norm's running state under every transform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jdlopt.models import make_model
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS, MONOTONE, Conv, dropout


def test_dropout_rate_zero_is_the_identity():
    x = jax.random.normal(jax.random.key(0), (64, 33))
    np.testing.assert_array_equal(dropout(jax.random.key(1), x, 0.0), x)
    np.testing.assert_array_equal(jax.jit(dropout)(jax.random.key(1), x, jnp.float32(0.0)), x)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.99])
def test_dropout_keeps_the_expectation(rate):
    n = 1 << 18
    y = np.asarray(dropout(jax.random.key(2), jnp.ones((n // 512, 512)), rate))
    kept = (y != 0).mean()
    error = np.sqrt(rate * (1 - rate) / n)
    assert abs(kept - (1 - rate)) < 5 * error + 2**-17
    scale = np.unique(y[y != 0])
    assert scale.size == 1
    np.testing.assert_allclose(scale, 1 / (1 - round(rate * 65536) / 65536), rtol=1e-6)
    # Neighbours share a word of random bits: they must be independent all the same.
    dropped = y == 0
    for shift in (1, 256):
        both = (dropped[:, :-shift] & dropped[:, shift:]).mean()
        assert abs(both - rate**2) < 6 * np.sqrt(rate**2 * (1 - rate**2) / n) + 2**-15


@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (2, 3, 7)])
def test_dropout_of_any_shape_and_extreme_rate(shape):
    y = dropout(jax.random.key(0), jnp.ones(shape), jnp.float32(0.9999999))
    assert y.shape == shape
    assert bool(jnp.isfinite(y).all())


def test_dropout_uses_another_mask_for_another_key():
    x = jnp.ones((100,))
    first, second = (dropout(jax.random.key(k), x, 0.5) for k in (0, 1))
    assert bool((first != second).any())


def test_vmap_over_rates_equals_single_rates():
    model = make_model({"name": "mlp", "features": (16, 16), "dropout_rate": 0.1}, 3)
    x, key = jax.random.normal(jax.random.key(0), (8, 5)), jax.random.key(3)
    rates = jnp.array([0.0, 0.2, 0.7])
    params, state = jax.jit(model.init)(jax.random.key(1), x, {"dropout_rate": rates[0]})

    def outputs(rate):
        return model.apply(params, state, x, {"dropout_rate": rate}, key=key, train=True)[0]

    together = jax.jit(jax.vmap(outputs))(rates)
    for index, rate in enumerate(rates):
        np.testing.assert_allclose(together[index], jax.jit(outputs)(rate), atol=1e-6)
    evaluated = model.apply(params, state, x, {"dropout_rate": rates[2]}, key=None, train=False)[0]
    np.testing.assert_allclose(together[0], evaluated, atol=1e-6)


def test_one_trace_serves_all_rates():
    model = make_model({"name": "cnn", "features": (4,), "dropout_rate": 0.1}, 3)
    x, traces = jnp.ones((2, 8)), []

    @jax.jit
    def outputs(params, rate):
        traces.append(rate)
        return model.apply(
            params, {}, x, {"dropout_rate": rate}, key=jax.random.key(0), train=True
        )[0]

    params, _ = jax.jit(model.init)(jax.random.key(1), x, {"dropout_rate": jnp.float32(0.1)})
    results = {float(outputs(params, jnp.float32(rate)).sum()) for rate in np.linspace(0, 0.9, 10)}
    assert len(traces) == 1
    assert len(results) > 3


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initialisers_variance(name):
    fan_in, fan_out = 9 * 30, 9 * 60
    conv = Conv(60, (3, 3), kernel_init=INITIALIZERS[name])
    kernel = conv.init(jax.random.key(0), jnp.ones((1, 4, 4, 30)))["params"]["kernel"]
    expected = {"he": 2 / fan_in, "lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out)}
    np.testing.assert_allclose(kernel.var(), expected[name.split("_")[0]], rtol=0.05)
    np.testing.assert_allclose(kernel.mean(), 0, atol=5e-3)


def test_monotone_activations_never_decrease():
    x = jnp.linspace(-6, 6, 1001)
    for name, activation in ACTIVATIONS.items():
        rises = bool((jnp.diff(activation(x)) >= 0).all())
        assert rises == (name in MONOTONE), name


NORMED = {"name": "cnn", "features": (4, 4), "batch_norm": True, "pool": "max"}


def normed(batch=16):
    model = make_model(NORMED, 3)
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (batch, 8, 8, 1))
    params, state = jax.jit(model.init)(jax.random.key(1), x, {})
    return model, x, params, state


def test_running_state_follows_the_batches():
    model, x, params, state = normed()
    outputs, new = model.apply(params, state, x, {}, key=jax.random.key(0), train=True)
    raw = Conv(4, (3, 3), use_bias=False).apply({"params": params["conv_0"]}, x)
    running = new["batch_stats"]["norm_0"]["norm"]
    np.testing.assert_allclose(running["mean"], 0.1 * raw.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * raw.var((0, 1, 2)), rtol=1e-4)
    step = jax.jit(lambda new: model.apply(params, new, x, {}, key=None, train=True)[1])
    for _ in range(200):
        new = step(new)
    evaluated, same = model.apply(params, new, x, {}, key=None, train=False)
    np.testing.assert_allclose(evaluated, outputs, atol=1e-3)
    assert same is new


def test_running_state_under_vmap_equals_single():
    model, x, _, _ = normed()
    keys = jax.random.split(jax.random.key(5), 3)
    params, state = jax.jit(jax.vmap(lambda key: model.init(key, x, {})))(keys)
    single = jax.jit(lambda p, s: model.apply(p, s, x, {}, key=None, train=True))
    outputs, new = jax.jit(jax.vmap(single))(params, state)
    for trial in range(3):
        one = jax.tree.map(lambda leaf, t=trial: leaf[t], (params, state, outputs, new))
        expected = single(one[0], one[1])
        for actual, other in zip(jax.tree.leaves(one[2:]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(actual, other, atol=1e-5)


def test_running_state_on_eight_devices_equals_one():
    model, x, params, state = normed()

    @jax.jit
    def step(params, state, x):
        def loss(params):
            outputs, new = model.apply(params, state, x, {}, key=None, train=True)
            return (outputs**2).mean(), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    assert len(sharded.sharding.device_set) == 8
    actual, expected = step(params, state, sharded), step(params, state, x)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5)


def test_dropout_is_absent_without_a_rate():
    model = make_model({"name": "mlp", "dropout_rate": None}, 2)
    x = jnp.ones((2, 3))
    params, state = jax.jit(model.init)(jax.random.key(0), x, {})
    apply = jax.make_jaxpr(lambda key: model.apply(params, state, x, {}, key=key, train=True)[0])
    assert "random_bits" not in str(apply(jax.random.key(0)))
