"""The step is pure: it vmaps into populations, accumulates, and knows its floats only as arrays."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdlopt import config as configs
from jdlopt import mesh as meshes
from jdlopt.train import memory
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def build(config):
    parts = Experiment.build(config)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:32]), "targets": jnp.asarray(arrays.targets[:32])}
    return parts, as_arrays(configs.hyperparameters(resolved)), batch


def test_a_population_equals_its_trials_trained_alone(config):
    parts, hparams, batch = build(config)
    step = parts.train_step

    def train(seed, rate, dropout):
        chosen = jax.tree.map(lambda leaf: leaf, hparams)
        chosen["optim"]["learning_rate"] = rate
        chosen["model"]["dropout_rate"] = dropout
        state = parts.init(seed, chosen)
        for _ in range(3):
            state, measured = step(state, batch)
        return state.params, measured["loss"]

    seeds = jnp.arange(4)
    rates, dropouts = jnp.geomspace(1e-3, 1e-1, 4), jnp.array([0.0, 0.1, 0.3, 0.5])
    together = jax.jit(jax.vmap(train))(seeds, rates, dropouts)
    alone = jax.jit(train)
    for index in range(4):
        one = alone(seeds[index], rates[index], dropouts[index])
        many = jax.tree.map(lambda leaf, at=index: leaf[at], together)
        chex.assert_trees_all_close(one, many, **TOLERANCE)


def test_ten_values_of_every_float_compile_once(config):
    config["optim"]["average"] = {"name": "ema", "decay": 0.9}
    config["loss"]["l1"] = 1e-4
    parts, hparams, batch = build(config)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def program(state, batch):
        return parts.train_step(state, batch)

    state = parts.init(0, hparams)
    losses = set()
    leaves, tree = jax.tree.flatten(hparams)
    assert len(leaves) >= 8
    for scale in np.linspace(0.5, 0.95, 10):
        varied = jax.tree.unflatten(tree, [leaf * np.float32(scale) for leaf in leaves])
        _, measured = program(state.replace(hparams=varied), batch)
        losses.add(float(measured["loss"]))
    assert len(losses) == 10  # the values do reach the step


def test_accumulated_gradients_equal_the_whole_batchs(config):
    config["model"]["dropout_rate"] = None
    after = []
    for accumulate in (1, 4):
        config["optim"]["accumulate"] = accumulate
        parts, hparams, batch = build(config)
        state = parts.init(0, hparams)
        after.append(jax.jit(parts.train_step)(state, batch))
    chex.assert_trees_all_close(after[0][0].params, after[1][0].params, **TOLERANCE)
    np.testing.assert_allclose(after[0][1]["loss"], after[1][1]["loss"], rtol=1e-5)


def test_devices_share_the_work_on_each_part_of_a_batch(config):
    programs = []
    for data, accumulate in ((1, 1), (4, 4)):
        config["optim"]["accumulate"] = accumulate
        config["mesh"] = {"data": data}
        parts = Experiment.build(config)
        programs.append(memory.compiled_step(parts, meshes.make_mesh(parts.config.mesh)))
    text = programs[1].as_text()
    assert "all-gather" not in text and "all-to-all" not in text and "all-reduce" in text
    alone, shared = (program.cost_analysis()["flops"] for program in programs)
    assert shared < 0.5 * alone  # a loop's body counts once: a quarter of a quarter, and the update


def test_sgd_is_the_gradient_of_the_loss(config):
    config["model"]["dropout_rate"] = None
    config["loss"] = {"name": "cross_entropy"}
    config["optim"] = {"name": "sgd", "learning_rate": 0.5}
    parts, hparams, batch = build(config)
    state = parts.init(0, hparams)
    after, measured = parts.train_step(state, batch)

    def loss(params):
        logits, _ = parts.components.model.apply(
            params, state.model_state, batch["inputs"], {}, key=None, train=False
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    expected = jax.tree.map(lambda leaf, grad: leaf - 0.5 * grad, state.params, grads)
    chex.assert_trees_all_close(after.params, expected, **TOLERANCE)
    np.testing.assert_allclose(measured["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(measured["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    assert int(after.step) == 1


@pytest.mark.parametrize(
    "name",
    [
        "sam",
        "muon",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("schedule_free_adamw", "adafactor", "lion")
        ),
    ],
)
def test_every_kind_of_optimizer_trains_through_the_same_step(config, name):
    config["optim"] = {"name": name, "learning_rate": 0.01}
    parts, hparams, batch = build(config)
    state = parts.init(0, hparams)
    program = jax.jit(parts.train_step)
    losses = []
    for _ in range(20):
        state, measured = program(state, batch)
        losses.append(float(measured["loss"]))
    assert losses[-1] < losses[0]
