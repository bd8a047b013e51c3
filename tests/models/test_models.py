"""The table of models, and a user's own Linen and NNX modules by dotted path."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.config import fields_of
from jdlopt.errors import ConfigError
from jdlopt.models import MODELS, make_model

IMAGES_ONLY = {"convnext", "efficientnet_lite0", "resnet", "unet", "vgg", "vit"}


pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.mark.parametrize("name", MODELS)
def test_fields_are_the_config_keys(name):
    fields = fields_of(MODELS[name], without=("num_outputs",))
    assert fields["dropout_rate"].default is None
    assert "num_outputs" not in fields


FAST = {"linear", "mlp", "cnn", "gru", "realmlp"}
"""Of the models, those whose training step each change is tried with."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST))
        for name in MODELS
        if name not in (*IMAGES_ONLY, "transformer_seq2seq", "two_towers")  # these take two
    ],
)
def test_a_training_step_lowers_the_loss(name):
    model = make_model({"name": name, "dropout_rate": 0.1}, 3)
    hparams = {"dropout_rate": jnp.float32(0.1)}
    x = jax.random.normal(jax.random.key(0), (8, 12))
    target = jax.nn.one_hot(jnp.arange(8) % 3, 3)
    params, state = jax.jit(model.init)(jax.random.key(1), x, hparams)

    @jax.jit
    def step(params):
        def loss(params):
            outputs = model.apply(params, state, x, hparams, key=None, train=False)[0]
            return ((outputs - target) ** 2).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.005 * g, params, gradient)

    values = []
    for _ in range(10):
        value, params = step(params)
        values.append(float(value))
    assert values[-1] < values[0]


@pytest.mark.parametrize(
    ("keys", "shape", "flat"),
    [
        ({"features": (3, 5), "kernel_size": 5, "strides": 2}, (40,), 10 * 5),
        ({"features": (3, 5), "kernel_size": 5, "padding": "valid"}, (40, 2), 32 * 5),
        ({"features": (3, 5), "pool": "max"}, (9, 8, 1), 2 * 2 * 5),
        ({"features": (3,), "pool": "avg", "pool_size": 3}, (9, 8, 1), 3 * 2 * 3),
        ({"features": (3, 6), "readout": "average"}, (9, 8, 1), 6),
        ({"features": ()}, (9, 2), 18),
        ({"features": (3,), "hidden": (11,), "batch_norm": True}, (4, 4, 1), 48),
    ],
)
def test_cnn_shapes(keys, shape, flat):
    model = make_model({"name": "cnn", **keys}, 4)
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    params, state = jax.jit(model.init)(jax.random.key(1), x, {})
    first = "dense_0" if keys.get("hidden") else "outputs"
    assert params["head"][first]["kernel"].shape[0] == flat
    assert ("batch_stats" in state) == bool(keys.get("batch_norm"))


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_cnn_pools_activations(activation):
    section = {"name": "cnn", "features": (3,), "pool": "max", "activation": activation}
    model = make_model(section, 4)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 1))
    params, state = jax.jit(model.init)(jax.random.key(1), x, {})
    plain = make_model({**section, "pool": "none"}, 6 * 6 * 3)
    head = {"outputs": {"kernel": jnp.eye(108), "bias": jnp.zeros(108)}}
    maps = plain.apply({**params, "head": head}, {}, x, {}, key=None, train=False)[0]
    pooled = maps.reshape(2, 3, 2, 3, 2, 3).max(axis=(2, 4)).reshape(2, -1)
    kernel, bias = params["head"]["outputs"]["kernel"], params["head"]["outputs"]["bias"]
    actual = model.apply(params, state, x, {}, key=None, train=False)[0]
    np.testing.assert_allclose(actual, pooled @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({}, (2, 2, 2, 2), r"'cnn' takes inputs of shape"),
        ({"features": (4, 4, 4, 4), "pool": "max"}, (8, 8, 1), r"model.pool_size=2 is larger"),
        ({"padding": "valid", "kernel_size": 9}, (8,), r"model.kernel_size=9 is larger"),
    ],
)
def test_cnn_says_what_does_not_fit(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_model({"name": "cnn", **keys}, 2).init(jax.random.key(0), jnp.ones((1, *shape)), {})


@pytest.mark.parametrize("name", ["own_modules:LinenNet", "own_modules:NnxNet"])
def test_a_users_module(name):
    model = make_model({"name": name, "width": 16, "noise_rate": 0.1, "scale": 1.0}, 3)
    x = 1 + jax.random.normal(jax.random.key(0), (32, 6))
    hparams = {"noise_rate": jnp.float32(0.0), "scale": jnp.float32(1.0)}
    params, state = jax.jit(model.init)(jax.random.key(1), x, hparams)
    traces = []

    @jax.jit
    def step(params, state, hparams, key):
        traces.append(1)

        def loss(params):
            outputs, new = model.apply(params, state, x, hparams, key=key, train=True)
            return (outputs**2).mean(), (outputs, new)

        return jax.grad(loss, has_aux=True)(params)

    def run(rate, key=2, scale=1.0):
        hparams = {"noise_rate": jnp.float32(rate), "scale": jnp.float32(scale)}
        return step(params, state, hparams, jax.random.key(key))

    gradient, (outputs, new) = run(0.0)
    assert outputs.shape == (32, 3)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    changed = [
        bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (new, state)), strict=True)
    ]
    assert changed and all(changed)
    np.testing.assert_allclose(run(0.0, scale=2.0)[1][0], 2 * outputs, rtol=1e-5)
    np.testing.assert_array_equal(run(0.5)[1][0], run(0.5)[1][0])
    assert bool((run(0.5)[1][0] != run(0.5, key=3)[1][0]).any())
    assert len(traces) == 1

    evaluated, same = model.apply(params, new, x, hparams, key=None, train=False)
    assert same is new
    assert bool((evaluated != outputs).any())

    rates = jnp.array([0.0, 0.5])
    population = jax.vmap(
        lambda rate: model.apply(
            params,
            state,
            x,
            {"noise_rate": rate, "scale": jnp.float32(1.0)},
            key=jax.random.key(2),
            train=True,
        )[0]
    )(rates)
    np.testing.assert_allclose(population[0], outputs, atol=1e-5)


def test_a_module_without_a_train_argument():
    model = make_model({"name": "own_modules:LinenNoTrain"}, 3)
    x = jnp.ones((2, 4))
    params, state = jax.jit(model.init)(jax.random.key(0), x, {})
    outputs, _ = model.apply(params, state, x, {}, key=jax.random.key(1), train=True)
    assert outputs.shape == (2, 3)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "cnnn"}, r"Did you mean 'cnn'\?"),
        ({"name": "own_modules:LinenNett"}, r"Did you mean 'LinenNet'\?"),
        ({"name": "no_such_module:Net"}, r"importing 'no_such_module' failed"),
        ({"name": "own_modules:NotAModule"}, r"neither a flax.linen.Module nor"),
        ({"name": "own_modules:WrongWidth"}, r"\(2, 7\).*need \(2, 3\)"),
    ],
)
def test_says_what_is_wrong_with_a_name(section, message):
    with pytest.raises(ConfigError, match=message):
        make_model(section, 3).init(jax.random.key(0), jnp.ones((2, 4)), {})


def test_says_that_a_float_is_traced():
    model = make_model({"name": "own_modules:BranchesOnFloat", "rate": 0.5}, 3)

    def outputs(rate):
        x, hparams = jnp.ones((2, 4)), {"rate": rate}
        params, state = jax.jit(model.init)(jax.random.key(0), x, hparams)
        return model.apply(params, state, x, hparams, key=jax.random.key(1), train=True)[0]

    with pytest.raises(ConfigError, match=r"jdlopt.models.layers.Dropout"):
        jax.jit(outputs)(jnp.float32(0.5))
