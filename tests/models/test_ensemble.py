"""An ensemble: its members are the models trained alone, and its prediction is their mean."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.memory import summary
from jdlopt.train.serve import evaluate_run
from jdlopt.train.state import Weights, as_arrays

CONFIG = {
    "data": {"source": "iris", "batch_size": 32, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8,), "batch_norm": True},
    "loss": {"name": "cross_entropy", "l2": 1e-2},
    "optim": {"name": "momentum", "learning_rate": 0.1},
    "train": {"epochs": 2, "tensorboard": False},
    "mesh": {"data": 1},
}
HOUSES = {
    "data": {"source": "diabetes", "batch_size": 32, "preprocess": {"scale": "standard"}},
    "loss": {"name": "mse", "l1": 1e-3},
}


def built(config, members):
    raw = configs.override(config, {"model.ensemble": members})
    parts = Experiment.build(raw)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:32]), "targets": jnp.asarray(arrays.targets[:32])}
    hparams = as_arrays(configs.hyperparameters(resolved))
    return parts, parts.init(3, hparams), batch


@pytest.mark.parametrize("config", [CONFIG, {**CONFIG, **HOUSES}], ids=["classes", "values"])
def test_members_train_as_each_would_alone(config):
    many, together, batch = built(config, 3)
    one, alone, _ = built(config, 1)
    step = jax.jit(many.train_step)
    single = jax.jit(one.train_step)
    start, losses = together, []
    for _ in range(3):
        together, measured = step(together, batch)
    for name in ("member_0", "member_1", "member_2"):
        state = alone.replace(params=start.params[name], model_state=start.model_state[name])
        for _ in range(3):
            state, own = single(state, batch)
        losses.append(own["loss"])
        chex.assert_trees_all_close(state.params, together.params[name], rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(state.model_state, together.model_state[name], rtol=1e-5)
    np.testing.assert_allclose(measured["loss"], np.mean(losses), rtol=1e-5)
    different = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), *map(
        start.params.get, ("member_0", "member_1")))  # fmt: skip
    assert different["head"]["dense_0"]["kernel"] > 0.1


@pytest.mark.parametrize("config", [CONFIG, {**CONFIG, **HOUSES}], ids=["classes", "values"])
def test_the_prediction_is_the_mean_of_the_members(config):
    many, together, batch = built(config, 3)
    one, _, _ = built(config, 1)

    def predicted(parts, params, model_state):
        weights = Weights(params, model_state, together.hparams, together.preprocess)
        found = parts.predict(weights, batch["inputs"])
        return found.outputs if found.probabilities is None else found.probabilities

    mean = predicted(many, together.params, together.model_state)
    each = [
        predicted(one, together.params[name], together.model_state[name])
        for name in together.params
    ]
    np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    assert mean.shape == each[0].shape


@pytest.mark.slow
def test_more_than_ten_members_keep_their_order():
    many, together, batch = built(CONFIG, 11)
    step = jax.jit(many.train_step)
    after, _ = step(together, batch)
    one, alone, _ = built(CONFIG, 1)
    name = "member_10"
    state = alone.replace(params=together.params[name], model_state=together.model_state[name])
    state, _ = jax.jit(one.train_step)(state, batch)
    chex.assert_trees_all_close(state.params, after.params[name], rtol=1e-5, atol=1e-6)


def test_a_run_trains_reads_and_evaluates_an_ensemble(tmp_path):
    result = fit(configs.override(CONFIG, {"model.ensemble": 3}), tmp_path / "run")
    found = result.record["metrics"]
    again = evaluate_run(tmp_path / "run", "test")["metrics"]
    assert again["test/accuracy"] == pytest.approx(found["test/accuracy"])
    assert "train/accuracy" in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_each_members_layers_are_told():
    many, _, _ = built(CONFIG, 2)
    one, _, _ = built(CONFIG, 1)
    single, whole = summary(one), summary(many)
    assert whole.trained == 2 * single.trained
    assert whole.forward_flops == 2 * single.forward_flops
    paths = [layer.path for layer in whole.layers]
    assert paths[: len(paths) // 2] == [f"member_0/{layer.path}" for layer in single.layers]


@pytest.mark.parametrize(
    "change", [{"model.lora_rank": 2}, {"model.pretrained": "weights.safetensors"}]
)
def test_what_members_cannot_have_is_told(change):
    with pytest.raises(ConfigError, match=r"model\.ensemble: .*together"):
        Experiment.build(configs.override(CONFIG, {"model.ensemble": 2, **change}))
