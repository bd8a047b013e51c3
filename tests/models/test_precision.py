"""A model may compute in half the bits; everything that training keeps stays float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

HALVES = {"bfloat16": 0.1, "float16": 0.02}
ENCODER = {"name": "transformer_encoder", "features": 8, "num_heads": 2, "num_layers": 1}
CASES = {
    "mlp": ({"name": "mlp", "features": (8,), "batch_norm": True}, (6,)),
    "cnn 1-D": ({"name": "cnn", "features": (4,), "batch_norm": True}, (12,)),
    "cnn 2-D": ({"name": "cnn", "features": (16, 4), "pool": "max", "strides": 1}, (8, 8, 3)),
    "lstm": ({"name": "lstm", "features": 4}, (5, 3)),
    "transformer": ({**ENCODER, "remat": "full"}, (5, 3)),
    "a user's Linen module": ({"name": "own_modules:LinenNet"}, (6,)),
    "a user's NNX module": ({"name": "own_modules:NnxNet"}, (6,)),
}
TRACED = {"cnn 1-D", "lstm"}
"""Cases that are traced but not run: `test_contract` runs every model of the table."""


pytestmark = pytest.mark.usefixtures("own_modules")


def program(section, shape):
    """Returns one training call: (params, state) → (loss, outputs, new state, gradients)."""
    model = make_model(section, 3)
    x = jax.random.normal(jax.random.key(0), (8, *shape))
    params, state = jax.jit(lambda key: model.init(key, x, {}))(jax.random.key(1))

    def loss(params, state):
        outputs, state = model.apply(params, state, x, {}, key=jax.random.key(2), train=True)
        return (outputs**2).mean(), (outputs, state)

    return jax.value_and_grad(loss, has_aux=True), params, state


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * (case in ("transformer", "cnn 2-D")))
        for case in CASES
        if case not in TRACED
    ],
)
def test_looks_like_float32_from_outside(case):
    section, shape = CASES[case]
    full, params, state = program(section, shape)
    (_, (expected, new32)), grads32 = jax.jit(full)(params, state)
    for dtype, tolerance in HALVES.items():
        call, same, _ = program({**section, "dtype": dtype}, shape)
        jax.tree.map(np.testing.assert_array_equal, same, params)
        (_, (outputs, new)), grads = jax.jit(call)(params, state)
        for found, wanted in ((outputs, expected), (new, new32), (grads, grads32)):
            jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), found, wanted)
        most = float(jnp.abs(expected).max())
        np.testing.assert_allclose(outputs, expected, atol=tolerance * most)
        assert float(jnp.abs(outputs - expected).max()) > 0  # it did compute in fewer bits


@pytest.mark.parametrize("case", ["cnn 2-D", "lstm", "mlp"])
def test_matmuls_take_half_the_bits(case):
    section, shape = CASES[case]
    call, params, state = program({**section, "dtype": "bfloat16"}, shape)
    text = str(jax.make_jaxpr(call)(params, state))
    products = [line for line in text.splitlines() if "dot_general[" in line or "conv_gen" in line]
    assert products
    assert all("f32" not in line.partition("=")[0] for line in products)


def test_float32_is_the_same_program():
    section, shape = CASES["cnn 1-D"]
    texts = [
        str(jax.make_jaxpr(call)(params, state))
        for call, params, state in (
            program(section, shape),
            program({**section, "dtype": "float32"}, shape),
        )
    ]
    assert texts[0] == texts[1]


def test_categories_are_not_rounded():
    columns = (0, 1000)
    section = {"name": "linear", "embedding_features": 4}
    codes = jnp.float32([[0.5, 997], [0.5, 998], [0.5, 999]])
    outputs = []
    for dtype in ("float32", "bfloat16"):
        model = make_model({**section, "dtype": dtype}, 2, columns=columns)
        params, state = jax.jit(model.init)(jax.random.key(0), codes, {})
        outputs.append(model.apply(params, state, codes, {}, key=None, train=False)[0])
    np.testing.assert_allclose(outputs[0], outputs[1], atol=0.05)
    assert len(np.unique(outputs[1], axis=0)) == 3


def test_token_ids_are_looked_up():
    model = make_model({"name": "gru", "features": 4, "dtype": "bfloat16"}, 2, tokens=700)
    ids = jnp.array([[698, 699, 0]], jnp.int32)
    params, state = jax.jit(model.init)(jax.random.key(0), ids, {})
    assert model.apply(params, state, ids, {}, key=None, train=False)[0].dtype == jnp.float32


def test_says_which_types_there_are():
    with pytest.raises(ConfigError, match=r"Did you mean 'bfloat16'\?"):
        make_model({"name": "linear", "dtype": "bfloat"}, 2)
