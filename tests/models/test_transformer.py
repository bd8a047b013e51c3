"""Transformers: padding, causality, stacked layers, and what can't work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.attention import attend, stack_layers, unstack_layers

NAMES = ("transformer_encoder", "transformer_decoder")
SIZES = {"features": 8, "num_layers": 2, "num_heads": 2, "mlp_features": 12, "max_positions": 6}
RATES = {"dropout_rate": jnp.float32(0.3), "norm_epsilon": jnp.float32(1e-6)}
TOKENS = jnp.array([[3, 4, 5, 0, 0], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])


def made(name, tokens=11, **keys):
    section = {"name": name, **SIZES, "dropout_rate": 0.3, **keys}
    model = make_model(section, 3, tokens=tokens)
    x = TOKENS if tokens else jax.random.normal(jax.random.key(4), (3, 5, 2))
    params, _ = jax.jit(model.init)(jax.random.key(0), x, RATES)
    # Biases start constant: others show a wrong one.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return model, jax.tree.unflatten(tree, moved), x


def outputs(model, params, x, key=None):
    train = key is not None
    call = jax.jit(lambda params: model.apply(params, {}, x, RATES, key=key, train=train)[0])
    return call(params)


def loss_and_gradient(model, params, x, **options):
    def loss(params, x):
        return (model.apply(params, {}, x, RATES, key=None, train=False)[0] ** 2).mean()

    return jax.jit(jax.value_and_grad(loss), **options)(params, x)


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    model, params, x = made(name)
    padded = outputs(model, params, x)
    np.testing.assert_allclose(outputs(model, params, x[:1, :3]), padded[:1], atol=1e-6)
    assert bool(jnp.isfinite(padded).all())  # the last row is nothing but padding


def test_cls_pools_the_first_position():
    model, params, x = made("transformer_encoder", pooling="cls", num_types=2)
    assert params["pooler"]["kernel"].shape == (8, 8)
    assert params["embeddings"]["types"]["embedding"].shape == (2, 8)
    padded = outputs(model, params, x)
    np.testing.assert_allclose(outputs(model, params, x[:1, :3]), padded[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "tokens"), [(NAMES[0], 11), pytest.param(NAMES[1], 0, marks=pytest.mark.slow)]
)
def test_stacked_layers_compute_the_same(name, tokens):
    model, params, x = made(name, tokens)
    scanned = make_model(
        {"name": name, **SIZES, "dropout_rate": 0.3, "scan_layers": True, "remat": "full"},
        3,
        tokens=tokens,
    )
    stacked = stack_layers(params)
    fresh = jax.eval_shape(scanned.init, jax.random.key(0), x, RATES)[0]
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, stacked)
    value, gradient = loss_and_gradient(scanned, stacked, x)
    close((value, unstack_layers(gradient)), loss_and_gradient(model, params, x))
    key = jax.random.key(5)
    assert bool((outputs(scanned, stacked, x, key) != outputs(scanned, stacked, x)).any())


def test_unstacking_undoes_stacking():
    params = {f"layer_{index}": {"bias": jnp.full(2, index)} for index in range(11)} | {"norm": 3}
    again = unstack_layers(stack_layers(params))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert stack_layers({"head": 1}) == unstack_layers({"head": 1}) == {"head": 1}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({"num_heads": 3}, (5,), r"3 heads can't share a width of 8 evenly; 2 would, or .* 9"),
        ({}, (7,), r"model.max_positions: 6 is fewer than the 7 positions"),
        ({}, (5, 2, 2), r"takes inputs of shape \(length,\).*Use 'vit' for images"),
    ],
)
def test_says_what_does_not_fit(name, keys, shape, message):
    model = make_model({"name": name, **SIZES, **keys}, 2)
    with pytest.raises(ConfigError, match=message):
        model.init(jax.random.key(0), jnp.ones((1, *shape)), {})


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_the_one_of_jax(masked, causal):
    shape = (2, 5, 2, 4)
    inputs = [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)]
    mask = jnp.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], bool)[:, None, None] if masked else None

    def pulled(call):
        found, pull = jax.vjp(call, *inputs[:3])
        return found, pull(inputs[3])

    def general(query, key, value):
        return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal)

    close(jax.jit(lambda: pulled(lambda *qkv: attend(*qkv, mask, causal)))(), pulled(general))


def test_a_program_holds_one_attention():
    x = jnp.ones((2, 3, 2, 4))
    gradient = jax.jit(jax.grad(lambda x: attend(x, x, x).sum())).trace(x)
    assert "conditional" not in gradient.lower().compile().as_text()
