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
    [
        ("gru", "last", (6,)),
        pytest.param("gru", "mean", (4, 5, 2), marks=pytest.mark.slow),
        pytest.param("lstm", "last", (6, 2), marks=pytest.mark.slow),
    ],
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
    assert len(params) == 2 * 2 + 1

    def loss(params):
        key = jax.random.key(2)
        outputs, _ = model.apply(params, state, x, hparams, key=key, train=True)
        return (outputs**2).sum()

    assert all(
        bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    )


def test_refuses_volumes():
    with pytest.raises(ConfigError, match=r"'gru' takes token ids, or inputs of shape .*Use 'mlp'"):
        make_model({"name": "gru"}, 2).init(jax.random.key(0), jnp.ones((1, 2, 2, 2, 2)), {})


RATES = {"dropout_rate": jnp.float32(0.5)}


def of_tokens(name, **keys):
    """A stacked, bidirectional model of token ids, and its parameters."""
    section = {"name": name, "features": 4, "num_layers": 2, "bidirectional": True, **keys}
    model = make_model({**section, "embedding_features": 6}, 3, tokens=20)
    params, state = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 4), jnp.int32), RATES)
    moved = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape),
        params,
    )
    return model, moved, state


@pytest.mark.parametrize(
    ("name", "readout"), [("gru", "last"), pytest.param("lstm", "mean", marks=pytest.mark.slow)]
)
def test_padding_changes_nothing(name, readout):
    model, params, state = of_tokens(name, readout=readout)
    call = jax.jit(lambda ids: model.apply(params, state, ids, {}, key=None, train=False)[0])
    ids = jnp.array([[5, 9, 2, 0, 0, 0], [3, 8, 17, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    padded = call(ids)
    np.testing.assert_allclose(padded[:2], call(ids[:2, :3]), atol=1e-6)
    assert np.isfinite(padded[2]).all()  # a text without a token


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_mask_drops_the_same_units_of_the_state_at_every_step(cell):
    module, params, x = layer(cell)
    kept = jnp.tile(jnp.array([0.0, 2.0, 2.0, 0.0, 2.0]), (N, 1))
    states, final = module.apply({"params": params}, x, None, kept)
    # the same as a recurrent kernel whose rows are dropped and scaled, in every step
    rows = {**params, "recurrent_kernel": params["recurrent_kernel"] * kept[0][:, None]}
    expected, last = module.apply({"params": rows}, x)
    np.testing.assert_allclose(states, expected, atol=1e-5)
    np.testing.assert_allclose(final, last, atol=1e-5)
    assert float(jnp.abs(module.apply({"params": params}, x)[1] - final).max()) > 1e-2


@pytest.mark.slow
def test_variational_dropout_draws_one_mask_a_sequence():
    model, params, state = of_tokens("lstm", variational_dropout=True, dropout_rate=0.5)
    drawn = []

    def note(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if type(context.module).__name__ == "Dropout":
            drawn.append((context.module.name, out))
        return out

    def outputs(ids, key, rate, train=True):
        return model.apply(
            params, state, ids, {"dropout_rate": jnp.float32(rate)}, key=key, train=train
        )[0]

    ids = jnp.array([[5, 9, 2, 17, 4], [5, 9, 2, 17, 4]])
    with nn.intercept_methods(note):
        outputs(ids, jax.random.key(3), 0.5)
    masks = dict(drawn)
    shapes = {key: mask.shape for key, mask in masks.items()}
    assert shapes == {
        "dropout_0": (2, 6), "dropout_1": (2, 8), "dropout": (2, 8),
        **{f"state_dropout_{i}_{way}": (2, 4) for i in (0, 1) for way in ("forward", "backward")},
    }  # fmt: skip
    del masks["dropout"]  # of values, not of ones
    assert all(set(np.unique(mask)) <= {0.0, 2.0} for mask in masks.values())
    assert len({np.asarray(mask).tobytes() for mask in masks.values()}) == len(masks)
    plain = outputs(ids, None, 0.5, train=False)
    np.testing.assert_allclose(outputs(ids, jax.random.key(3), 0.0), plain, atol=1e-6)
    first, second = outputs(ids, jax.random.key(3), 0.5)
    assert float(jnp.abs(first - second).max()) > 1e-4  # each sequence has its own masks


@pytest.mark.slow
def test_rematerialising_changes_no_gradient_and_keeps_less():
    x = jax.random.normal(jax.random.key(0), (2, 30, 3))
    found = {}
    for remat in ("none", "full"):
        section = {"name": "lstm", "features": 16, "dropout_rate": 0.5, "remat": remat}
        model = make_model({**section, "variational_dropout": True}, 3)
        params, state = jax.jit(model.init)(jax.random.key(1), x, RATES)

        def loss(params, model=model, state=state):
            key = jax.random.key(2)
            return (model.apply(params, state, x, RATES, key=key, train=True)[0] ** 2).sum()

        program = jax.jit(jax.grad(loss)).lower(params).compile()
        found[remat] = program(params), program.memory_analysis().temp_size_in_bytes
    (plain, most), (spared, least) = found["none"], found["full"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), spared, plain)
    assert least < 0.7 * most


@pytest.mark.parametrize(
    ("keys", "tokens", "shape", "message"),
    [
        ({"variational_dropout": True}, 0, (4, 2), "model.dropout_rate, which is None"),
        ({}, 9, (4, 2), r"'gru' takes token ids, .*are \(4, 2\)"),
    ],
)
def test_says_what_is_wrong(keys, tokens, shape, message):
    model = make_model({"name": "gru", **keys}, 2, tokens=tokens)
    with pytest.raises(ConfigError, match=message):
        model.init(jax.random.key(0), jnp.ones((1, *shape), jnp.int32), {})
