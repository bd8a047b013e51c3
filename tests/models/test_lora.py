"""Low-rank adapters: they start as nothing, train alone with the head, merge into the kernels."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.models import lora, make_model
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays

CNN = {"name": "cnn", "features": (6, 6), "batch_norm": True}
GRU = {"name": "gru", "features": 6}
KEY = jax.random.key(0)


def moved(params, key=1):
    """Parameters whose adapters are not 0 any more."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves)]
    )


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "section", [CNN, pytest.param(GRU, marks=pytest.mark.slow)], ids=["cnn", "gru"]
)
def test_starts_as_the_model_and_merges_back_into_it(section, dtype):
    section = {**section, "dtype": dtype}
    x = jax.random.normal(KEY, (4, 8, 8, 2) if section["name"] == "cnn" else (4, 8, 2))
    plain = make_model(section, 3)
    adapted = make_model({**section, "lora_rank": 2, "lora_alpha": 4.0}, 3)
    hparams = {"lora_alpha": jnp.float32(4)}
    base, state = jax.jit(plain.init)(KEY, x, {})
    params, _ = jax.jit(adapted.init)(KEY, x, hparams)
    jax.tree.map(np.testing.assert_array_equal, params["base"], base)

    def outputs(model, params, hparams):
        return model.apply(params, state, x, hparams, key=None, train=False)[0]

    first = outputs(adapted, params, hparams)
    np.testing.assert_array_equal(first, outputs(plain, base, {}))
    params = moved(params)
    after = outputs(adapted, params, hparams)
    assert float(jnp.abs(after - first).max()) > 1e-2
    whole = lora.merged(params, alpha=4.0)
    assert jax.tree.structure(whole) == jax.tree.structure(base)
    np.testing.assert_allclose(outputs(plain, whole, {}), after, atol=1e-6)
    doubled = outputs(adapted, params, {"lora_alpha": jnp.float32(8)})
    assert float(jnp.abs(doubled - after).max()) > 1e-3


def test_a_convolutions_kernel_is_a_matrix():
    model = make_model({**CNN, "lora_rank": 3, "lora_patterns": ("conv_1",)}, 3)
    params, _ = jax.jit(model.init)(KEY, jnp.ones((1, 8, 8, 2)), {})
    shapes = jax.tree.map(lambda leaf: leaf.shape, params["adapters"])
    assert shapes == {"conv_1": {"kernel": {"a": (3 * 3 * 6, 3), "b": (3, 6)}}}


def test_stacked_layers_have_an_adapter_each():
    base = {"layers": {"kernel": jax.random.normal(KEY, (5, 4, 6))}}
    model = lora.Model(lambda *_: (base, {}), lambda params, *_, **__: (params, {}))
    adapted = lora.with_adapters(model, 2, lora.KERNELS, stacked=lora.STACKED)
    params = moved(adapted.init(KEY, None, {})[0])
    pair = params["adapters"]["layers"]["kernel"]
    assert pair["a"].shape == (5, 4, 2) and pair["b"].shape == (5, 2, 6)
    wanted = params["base"]["layers"]["kernel"][3] + pair["a"][3] @ pair["b"][3]
    np.testing.assert_allclose(lora.merged(params)["layers"]["kernel"][3], wanted, atol=1e-6)


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8, 2)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return {
        "data": {"source": str(tmp_path / "data.npz"), "batch_size": 8, "validation_fraction": 0.2},
        "model": {**CNN, "lora_rank": 2, "lora_alpha": 4.0},
        "optim": {"name": "adamw", "learning_rate": 0.01},
        "train": {"steps": 4},
        "mesh": {"data": 1},
    }


def one_step(config):
    parts = Experiment.build(config)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:8]), "targets": jnp.asarray(arrays.targets[:8])}
    state = parts.init(0, as_arrays(configs.hyperparameters(resolved)))
    after, _ = jax.jit(parts.train_step)(state, batch)
    after, _ = jax.jit(parts.train_step)(after, batch)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, state.params)
    return resolved, state, changed


def test_adapters_and_head_train_and_the_base_does_not(config):
    resolved, state, changed = one_step(config)
    assert resolved.optim.freeze == (lora.FREEZE,)
    again = Experiment.build(json.loads(configs.dumps(resolved))).config
    assert again.optim == resolved.optim
    assert all(jax.tree.leaves(changed["adapters"]))
    assert all(jax.tree.leaves(changed["base"].pop("head")))
    assert not any(jax.tree.leaves(changed["base"]))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params["adapters"]))
    trained += sum(leaf.size for leaf in jax.tree.leaves(state.params["base"]["head"]))
    assert moments < 2 * trained + 10


def test_a_config_may_say_itself_what_of_the_base_is_frozen(config):
    config["optim"]["freeze"] = ("^base/.*kernel",)
    resolved, _, changed = one_step(config)
    assert resolved.optim.freeze == ("^base/.*kernel",)
    assert changed["base"]["norm_0"]["norm"]["scale"]
    assert not changed["base"]["conv_0"]["kernel"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"lora_patterns": ("cnov_1",)}, "'cnov_1' matches no parameter. .*conv_1/kernel"),
        ({"lora_patterns": ("norm_0",)}, "'norm_0' matches only vectors and the head"),
        ({"lora_patterns": ("head",)}, "'head' matches only vectors and the head"),
        ({"lora_patterns": ("(",)}, "is not a regular expression"),
        ({"lora_rank": None, "lora_alpha": 2.0}, "model.lora_alpha: scales adapters"),
        ({"name": "mlp"}, "has no kernels but its head's"),
    ],
)
def test_says_what_is_wrong(section, message):
    keys = {"name": "cnn", "features": (4, 4), "batch_norm": True, "lora_rank": 2, **section}
    keys = {"name": "mlp", "lora_rank": 2} if section.get("name") == "mlp" else keys
    with pytest.raises(ConfigError, match=message):
        make_model(keys, 3).init(KEY, jnp.ones((1, 8, 8, 2)), {})
