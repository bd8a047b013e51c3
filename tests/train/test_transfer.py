"""Transfer: what is frozen costs nothing and stays to the bit; groups unfreeze in one program."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jdlopt import config as configs
from jdlopt import optim
from jdlopt.errors import ConfigError, Interrupted
from jdlopt.models.head import head_of
from jdlopt.study import structure
from jdlopt.train import checkpoint, serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.state import as_arrays

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def config(config):
    """A small convolutional network: ``conv_0``, ``conv_1``, ``head``."""
    config["model"] = {"name": "cnn", "features": (8, 16)}
    return config


@pytest.fixture
def gradual(config):
    """The head alone first; from step 6 the upper convolution, from step 12 the lower one."""
    config["optim"]["groups"] = {
        "upper": {"params": ("^conv_1/",), "learning_rate_scale": 0.5, "unfreeze_at": 6},
        "lower": {"params": ("^conv_0/",), "learning_rate_scale": 0.1, "unfreeze_at": 12},
    }
    return config


def build(config):
    parts = Experiment.build(config)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:32]), "targets": jnp.asarray(arrays.targets[:32])}
    hparams = as_arrays(configs.hyperparameters(resolved))
    return parts, parts.init(0, hparams), batch


def stepped(parts):
    return jax.jit(parts.train_step)


def flops(config):
    parts, state, batch = build(config)
    return stepped(parts).lower(state, batch).compile().cost_analysis()["flops"]


def parameters(workdir):
    config = serve.run_config(workdir)
    parts = Experiment.build(config)
    return serve.load_weights(parts, workdir, "newest")[0].params


def stop_at(step):
    def on_progress(progress):
        if progress.step >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def matmuls(jaxpr):
    """The matmuls and convolutions of a traced function, and of all that it calls."""
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name in ("dot_general", "conv_general_dilated")
        found += sum(map(matmuls, jaxprs_in_params(equation.params)))
    return found


def branches(jaxpr):
    """The branches of the one conditional that chooses between gradients."""
    found = [e.params["branches"] for e in jaxpr.eqns if e.primitive.name == "cond"]
    for equation in jaxpr.eqns:
        if equation.primitive.name != "cond":
            for inner in jaxprs_in_params(equation.params):
                found += branches(inner)
    return [each for each in found if any(matmuls(branch.jaxpr) for branch in each)]


# --- frozen ---------------------------------------------------------------------------------------


def test_frozen_parameters_stay_to_the_bit_and_cost_no_backward_pass(config):
    config["optim"]["average"] = {"name": "ema", "decay": 0.9}
    config["loss"]["l2"] = 0.01  # its gradient does not reach them either
    whole, everything = flops(config), build(config)[1]
    config["optim"]["freeze"] = ("^conv_",)
    parts, start, batch = build(config)
    state, step = start, stepped(parts)
    for _ in range(3):
        state, measured = step(state, batch)
    for name in ("conv_0", "conv_1"):
        chex.assert_trees_all_equal(state.params[name], start.params[name])
        chex.assert_trees_all_equal(state.average.params[name], start.params[name])
    assert np.all(
        state.params["head"]["outputs"]["kernel"] != start.params["head"]["outputs"]["kernel"]
    )
    assert flops(config) < 0.5 * whole
    sizes = [sum(x.size for x in jax.tree.leaves(s.opt_state)) for s in (everything, start)]
    frozen = sum(x.size for n in ("conv_0", "conv_1") for x in jax.tree.leaves(start.params[n]))
    assert sizes[0] - sizes[1] == 2 * frozen
    assert np.isfinite(measured["grad_norm"])


def test_accumulated_gradients_of_a_frozen_body_equal_the_whole_batchs(gradual):
    after = []
    for accumulate in (1, 4):
        gradual["optim"] |= {"name": "sgd", "accumulate": accumulate, "freeze": ("^conv_0/bias",)}
        parts, state, batch = build(gradual)
        after.append(stepped(parts)(state.replace(step=jnp.int32(7)), batch)[0].params)
    chex.assert_trees_all_close(after[0], after[1], **TOLERANCE)


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"freeze": ("^conv_9",)}, "optim.freeze: '.conv_9' matches no parameter. The nearest"),
        ({"freeze": (".",)}, "freezes all 6 parameters"),
        ({"groups": {"a": {"params": ("conv",), "unfreez_at": 3}}}, "mean 'unfreeze_at'"),
        ({"groups": {"a": {"unfreeze_at": 3}}}, "optim.groups.a.params: is missing"),
        ({"groups": {"a": {"params": ("conv",), "b1": 0.8}}}, "optim.groups.a.b1: is unknown"),
        ({"groups": {"a": {"params": ("conv",), "name": "sdg"}}}, "optim.groups.a.name 'sdg' is"),
        ({"groups": {"a": {"params": ("conv",), "unfreeze_at": 24}}}, "not within the 24 steps"),
        ({"groups": {"a": 3}}, "optim.groups.a: expected a section"),
        ({"groups": 3}, "optim.groups: expected a section"),
    ],
)
def test_what_is_wrong_with_groups_is_told_before_training(config, optim, message):
    config["optim"] = {"name": "adam", **optim}
    with pytest.raises(ConfigError, match=message):
        Experiment.build(config)


def test_groups_are_set_from_the_command_line(gradual):
    text = configs.Override
    config = configs.override(
        gradual,
        {
            "optim.groups.wide.params": text("head/outputs/kernel"),
            "optim.groups.wide.name": text("momentum"),
            "optim.groups.wide.momentum": text("0.5"),
            "optim.groups.lower.unfreeze_at": text("3"),
        },
    )
    groups = Experiment.build(config).config.optim.groups
    assert groups["wide"].params == ("head/outputs/kernel",)
    assert groups["wide"].options == {"momentum": 0.5} and groups["lower"].unfreeze_at == 3
    assert groups["lower"].options == {}


# --- unfrozen step by step ------------------------------------------------------------------------


def test_one_program_serves_all_phases_and_values(gradual):
    parts, state, batch = build(gradual)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(state):
        return parts.train_step(state, batch)

    rates = state.hparams["optim"]["groups"]
    history = [state.params]
    for number in range(15):
        rates["upper"]["learning_rate_scale"] = jnp.float32(1 / (number + 1))
        state, measured = step(state)
        history.append(state.params)
    moved = {
        name: [
            bool((a[name]["kernel"] != b[name]["kernel"]).any())
            for a, b in itertools.pairwise(history)
        ]
        for name in ("conv_0", "conv_1")
    }
    assert moved["conv_1"] == [False] * 6 + [True] * 9
    assert moved["conv_0"] == [False] * 12 + [True] * 3
    rate = optim.learning_rate_at(
        configs.to_dict(parts.config.optim), parts.total_steps, 14, state.hparams["optim"]
    )
    np.testing.assert_allclose(measured["learning_rate"], rate)  # the base rate is logged


def test_what_is_not_unfrozen_yet_has_no_backward_pass(gradual):
    parts, state, batch = build(gradual)
    jaxpr = jax.make_jaxpr(parts.train_step)(state, batch)
    (phases,) = branches(jaxpr.jaxpr)
    counts = [matmuls(phase.jaxpr) for phase in phases]
    assert len(counts) == 3 and counts[0] < counts[1] < counts[2]


def test_a_population_of_one_phase_equals_its_trials_and_runs_one_branch(gradual):
    parts, state, batch = build(gradual)
    step = parts.train_step
    states = jax.vmap(lambda seed: parts.init(seed, state.hparams))(jnp.arange(3))
    together = jax.jit(jax.vmap(step, in_axes=(0, None)))
    alone = jax.jit(step)
    for at in (5, 6, 13):
        states = states.replace(
            step=jnp.full(3, at), opt_state=states.opt_state._replace(step=jnp.full(3, at))
        )
        after, _ = together(states, batch)
        for index in range(3):
            own, _ = alone(jax.tree.map(lambda leaf, i=index: leaf[i], states), batch)
            many = jax.tree.map(lambda leaf, i=index: leaf[i], after)
            chex.assert_trees_all_close(own.params, many.params, **TOLERANCE)
    jaxpr = jax.make_jaxpr(jax.vmap(step, in_axes=(0, None)))(states, batch)
    assert len(branches(jaxpr.jaxpr)) == 1


@pytest.mark.slow
def test_trials_in_different_phases_are_right_too(gradual):
    parts, state, batch = build(gradual)
    step = parts.train_step
    at = jnp.array([3, 13])
    states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    states = states.replace(step=at, opt_state=states.opt_state._replace(step=at))
    after, measured = jax.jit(jax.vmap(step, in_axes=(0, None)))(states, batch)
    for index in range(2):
        own, alone = jax.jit(step)(jax.tree.map(lambda leaf, i=index: leaf[i], states), batch)
        many = jax.tree.map(lambda leaf, i=index: leaf[i], after)
        chex.assert_trees_all_close(own.params, many.params, **TOLERANCE)
        np.testing.assert_allclose(alone["grad_norm"], measured["grad_norm"][index], rtol=1e-5)


@pytest.mark.slow
def test_groups_on_eight_devices_equal_one_and_go_on_where_they_were_stopped(gradual, tmp_path):
    gradual["model"] |= {"features": (32, 32), "kernel_size": 5}  # large enough for fsdp to split
    gradual["optim"]["freeze"] = ("^conv_0/bias",)
    gradual["train"]["eval_every"] = 3
    fit(gradual, tmp_path / "one")
    gradual["mesh"] = {"data": 2, "fsdp": 4}
    fit(gradual, tmp_path / "eight")
    with pytest.raises(Interrupted):
        fit(gradual, tmp_path / "parts", stop_at(1))  # while all but the head is frozen
    fit(gradual, tmp_path / "parts")
    one, eight, parts = (parameters(tmp_path / name) for name in ("one", "eight", "parts"))
    chex.assert_trees_all_close(one, eight, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(eight, parts)


# --- two phases -----------------------------------------------------------------------------------


def test_two_phases_are_one_config(tmp_path):
    """First the head on a frozen body, then the last block at a tenth of the rate."""
    config = {
        "data": {"source": "digits", "batch_size": 64},
        "model": {"name": "cnn", "features": (8, 16)},
        "optim": {
            "name": "adam",
            "learning_rate": 0.01,
            "freeze": ("^conv_0/",),
            "groups": {
                "last_block": {
                    "params": ("^conv_1/",),
                    "unfreeze_at": 20,
                    "learning_rate_scale": 0.1,
                }
            },
        },
        "train": {
            "steps": 40,
            "eval_every": 20,
            "steps_per_dispatch": 20,
            "checkpoint_every": 20,
            "tensorboard": False,
        },
        "mesh": {"data": 1},
    }
    result = fit(config, tmp_path)
    parts = Experiment.build(config)
    start = parts.init(0)
    first, second = (
        checkpoint.restore(
            checkpoint.place(tmp_path / "checkpoints", step), checkpoint.saved(start)
        )["params"]
        for step in (20, 40)
    )
    for name in ("conv_0", "conv_1"):
        chex.assert_trees_all_equal(first[name], start.params[name])
    chex.assert_trees_all_equal(second["conv_0"], start.params["conv_0"])
    block, head = (
        np.abs(after - before).mean()
        for before, after in (
            (first["conv_1"]["kernel"], second["conv_1"]["kernel"]),
            (first["head"]["outputs"]["kernel"], second["head"]["outputs"]["kernel"]),
        )
    )
    assert 0 < block < 0.5 * head
    assert result.metrics["validation/accuracy"] > 0.8


# --- linear probing -------------------------------------------------------------------------------


@pytest.fixture
def probe(config):
    """A frozen body below a head with a hidden layer."""
    config["model"] |= {"hidden": (12,), "batch_norm": True, "freeze_norm": True}
    config["optim"]["freeze"] = ("^(?!head/)",)
    config["train"] |= {"steps": 12, "eval_every": 6}
    return config


@pytest.mark.slow
def test_a_head_on_cached_features_equals_one_on_a_frozen_body(probe, tmp_path):
    plain = fit(probe, tmp_path / "plain")
    probe["train"] |= {"cache_features": True, "steps_per_dispatch": 1}
    probe["data"]["in_memory"] = False  # streamed, spread over devices, stopped and resumed
    probe["mesh"] = {"data": 2, "fsdp": 4}
    with pytest.raises(Interrupted):
        fit(probe, tmp_path / "cached", stop_at(2))
    cached = fit(probe, tmp_path / "cached")
    chex.assert_trees_all_close(
        parameters(tmp_path / "plain"), parameters(tmp_path / "cached"), rtol=1e-5, atol=1e-5
    )
    for name, value in plain.metrics.items():
        np.testing.assert_allclose(value, cached.metrics[name], rtol=1e-5, atol=1e-5)
    measured = serve.evaluate_run(tmp_path / "cached", "test", "best")["metrics"]
    np.testing.assert_allclose(measured["test/loss"], plain.metrics["test/loss"], rtol=1e-5)


@pytest.mark.slow
def test_cached_features_lie_in_memory_like_any_data(probe, tmp_path):
    plain = fit(probe, tmp_path / "plain")
    probe["train"]["cache_features"] = True
    cached = fit(probe, tmp_path / "cached")
    np.testing.assert_allclose(plain.metrics["train/loss"], cached.metrics["train/loss"], rtol=1e-5)


def test_the_body_of_a_cached_probe_is_not_run_in_a_step(probe):
    probe["model"] |= {"dropout_rate": 0.5, "freeze_norm": False, "hidden": ()}
    whole = flops(probe)
    parts, state, batch = build(probe)
    features = jnp.ones((32, 6 * 16))
    whole_model, inputs = parts.components.model, jax.ShapeDtypeStruct((1, 6), "float32")
    components = parts.components._replace(model=head_of(whole_model, inputs))
    head = dataclasses.replace(parts, components=components)
    step = stepped(head)
    after, _ = step(state, {**batch, "inputs": features})
    program = step.lower(state, {**batch, "inputs": features}).compile()
    assert program.cost_analysis()["flops"] < 0.3 * whole
    for name in ("norm_0", "norm_1"):  # the body's statistics stay
        old, new = state.model_state["batch_stats"][name], after.model_state["batch_stats"][name]
        chex.assert_trees_all_equal(old, new)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"optim": {"freeze": ("conv_0",)}},
            "but conv_1/kernel, norm_0/.* and 1 more would be trained. Set",
        ),
        (
            {"model": {"name": "cnn", "features": (4,), "lora_rank": 2}},
            "frozen, but adapters/conv_0/kernel/a, adapters/conv_0/kernel/b would be trained",
        ),
        ({"model": {"name": "mlp", "features": (4,)}}, "'mlp' has no parameters but the head's"),
        ({"model": {"name": "linear"}}, "'linear' has no parameters named 'head/…'"),
        ({"data": {"augment": {"mixup": 0.2}}}, "data.augment changes examples anew .*mixup"),
    ],
)
def test_what_is_in_the_way_of_cached_features_is_told(probe, changed, message):
    probe["train"]["cache_features"] = True
    if "model" in changed:
        probe["model"] = {}
        probe["optim"]["freeze"] = ()
    for section, keys in changed.items():
        probe[section] |= keys
    with pytest.raises(ConfigError, match=message):
        Experiment.build(probe)


def test_a_study_refuses_cached_features(probe):
    probe["train"]["cache_features"] = True
    with pytest.raises(ConfigError, match="is for a single run"):
        structure.build(probe)
