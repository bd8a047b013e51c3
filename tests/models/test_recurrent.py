"""The recurrent networks against flax's own cells and a plain numpy recurrence."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.recurrent import Recurrence

TIME, N, CHANNELS, WIDTH = 7, 3, 2, 5


def layer(cell, reverse=False):
    module = Recurrence(WIDTH, cell, "glorot_uniform", reverse)
    x = jax.random.normal(jax.random.key(0), (TIME, N, CHANNELS))
    params = module.init(jax.random.key(1), x)["params"]
    # Biases start constant: others show a wrong one.
    params = {
        name: leaf + 0.3 * jax.random.normal(jax.random.key(2), leaf.shape)
        for name, leaf in params.items()
    }
    return module, params, x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gru_equals_the_formula_in_numpy():
    module, params, x = layer("gru")
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    h, states = np.zeros((N, WIDTH)), []
    for inputs in np.asarray(x, np.float64):
        gates, hidden = inputs @ p["kernel"] + p["bias"], h @ p["recurrent_kernel"]
        (xr, xz, xn), (hr, hz, hn) = np.split(gates, 3, 1), np.split(hidden, 3, 1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        h = (1 - z) * np.tanh(xn + r * (hn + p["recurrent_bias"])) + z * h
        states.append(h)
    outputs, final = module.apply({"params": params}, x)
    np.testing.assert_allclose(outputs, states, atol=1e-5)
    np.testing.assert_allclose(final, h, atol=1e-5)


def test_gru_equals_flax():
    module, params, x = layer("gru")
    split = {k: jnp.split(params[k], 3, axis=-1) for k in ("kernel", "bias", "recurrent_kernel")}
    cell = {}
    for index, gate in enumerate("rzn"):
        cell[f"i{gate}"] = {"kernel": split["kernel"][index], "bias": split["bias"][index]}
        cell[f"h{gate}"] = {"kernel": split["recurrent_kernel"][index]}
    cell["hn"]["bias"] = params["recurrent_bias"]
    expected = nn.RNN(nn.GRUCell(WIDTH), time_major=True).apply({"params": {"cell": cell}}, x)
    np.testing.assert_allclose(module.apply({"params": params}, x)[0], expected, atol=1e-5)


def test_lstm_equals_flax():
    module, params, x = layer("lstm")
    kernels, recurrent = (jnp.split(params[k], 4, -1) for k in ("kernel", "recurrent_kernel"))
    bias = jnp.split(params["bias"], 4)
    bias[1] = bias[1] + params["recurrent_bias"]
    cell = {}
    for index, gate in enumerate("ifgo"):
        cell[f"i{gate}"] = {"kernel": kernels[index]}
        cell[f"h{gate}"] = {"kernel": recurrent[index], "bias": bias[index]}
    expected = nn.RNN(nn.LSTMCell(WIDTH), time_major=True).apply({"params": {"cell": cell}}, x)
    np.testing.assert_allclose(module.apply({"params": params}, x)[0], expected, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_reverse_reads_from_the_end(cell):
    module, params, x = layer(cell)
    backward = Recurrence(WIDTH, cell, "glorot_uniform", reverse=True)
    states, final = module.apply({"params": params}, x[::-1])
    reverse_states, reverse_final = backward.apply({"params": params}, x)
    np.testing.assert_allclose(reverse_states, states[::-1], atol=1e-6)
    np.testing.assert_allclose(reverse_final, final, atol=1e-6)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_starts_orthogonal_and_remembering(name):
    module = Recurrence(8, name, "glorot_uniform")
    params = module.init(jax.random.key(0), jnp.ones((2, 1, 3)))["params"]
    for gate in jnp.split(params["recurrent_kernel"], 4 if name == "lstm" else 3, axis=-1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(8), atol=1e-5)
    assert float(params["recurrent_bias"].mean()) == (1.0 if name == "lstm" else 0.0)


@pytest.mark.parametrize(
    ("name", "readout", "shape"),
    [("gru", "last", (6,)), ("gru", "mean", (4, 5, 2)), ("lstm", "last", (6, 2))],
)
def test_models_read_sequences_of_any_rank(name, readout, shape):
    section = {
        "name": name,
        "features": 4,
        "num_layers": 2,
        "bidirectional": True,
        "readout": readout,
        "dropout_rate": 0.2,
    }
    model, hparams = make_model(section, 3), {"dropout_rate": jnp.float32(0.2)}
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    params, state = jax.jit(model.init)(jax.random.key(1), x, hparams)
    assert len(params["layers"]) == 2 * 2 + 1

    def loss(params):
        key = jax.random.key(2)
        outputs, _ = model.apply(params, state, x, hparams, key=key, train=True)
        return (outputs**2).sum()

    assert all(
        bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    )


def test_refuses_volumes():
    with pytest.raises(ConfigError, match=r"'gru' takes inputs of shape .*Use 'mlp'"):
        make_model({"name": "gru"}, 2).init(jax.random.key(0), jnp.ones((1, 2, 2, 2, 2)), {})
