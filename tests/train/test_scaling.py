"""float16 trains as float32 does: what overflows is skipped, and the scale finds its place."""

from __future__ import annotations

import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.errors import DivergedError, Interrupted
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.trial import Trial
from jdlopt.train import checkpoint, scaling
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.scaling import LossScale
from jdlopt.train.state import as_arrays


@pytest.fixture
def half(config):
    config["model"] = {"name": "mlp", "features": (16,), "batch_norm": True, "dtype": "float16"}
    config["optim"]["average"] = {"name": "ema", "decay": 0.9}
    return config


def stepped(config):
    """Returns the compiled step, the first state and a batch."""
    parts = Experiment.build(config)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:32]), "targets": jnp.asarray(arrays.targets[:32])}
    state = parts.init(0, as_arrays(configs.hyperparameters(resolved)))
    return jax.jit(parts.train_step), state, batch


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_that_overflows_is_skipped(half, accumulate):
    half["optim"]["accumulate"] = accumulate
    step, state, batch = stepped(half)
    state, _ = step(state, batch)
    high = state.replace(loss_scale=LossScale(jnp.float32(2.0**40), jnp.int32(7)))
    after, measured = step(high, batch)
    assert int(after.step) == int(after.opt_state.step) == 2
    kept = ("params", "model_state", "average")
    for name in kept:
        chex.assert_trees_all_equal(getattr(after, name), getattr(state, name))
    chex.assert_trees_all_equal(after.opt_state.inner, state.opt_state.inner)
    assert [float(value) for value in after.loss_scale] == [2.0**39, 0]
    assert float(measured["skipped"]) == 1 and float(measured["loss_scale"]) == 2.0**40
    chex.assert_tree_all_finite(measured)
    _, measured = step(state, batch)
    assert float(measured["skipped"]) == 0 and float(measured["loss"]) > 0


def test_the_scale_doubles_after_many_good_steps(half, monkeypatch):
    monkeypatch.setattr(scaling, "GROWS_AFTER", 3)
    step, state, batch = stepped(half)
    state = state.replace(loss_scale=LossScale(jnp.float32(8.0), jnp.int32(0)))
    scales = []
    for _ in range(7):
        state, measured = step(state, batch)
        scales.append(float(measured["loss_scale"]))
    assert scales == [8, 8, 8, 16, 16, 16, 32]


def test_gradients_are_those_of_the_unscaled_loss(half):
    step, state, batch = stepped(half)
    norms = []
    for scale in (1.0, 2.0**10):
        scaled = state.replace(loss_scale=LossScale(jnp.float32(scale), jnp.int32(0)))
        norms.append(float(step(scaled, batch)[1]["grad_norm"]))
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-2)


def test_float32_has_no_scale(config):
    step, state, batch = stepped(config)
    after, measured = step(state, batch)
    assert after.loss_scale == () and "loss_scale" not in checkpoint.saved(after)
    assert not {"loss_scale", "skipped"} & set(measured)


@pytest.mark.slow
def test_a_run_that_would_overflow_recovers(half, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "START", 2.0**24)
    half["train"] |= {"steps": 60, "eval_every": 20, "log_every": 20}
    found = fit(half, tmp_path / "half")
    lines = [
        json.loads(line) for line in (tmp_path / "half" / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines[0]["train/skipped"] > 0 and lines[-1]["train/skipped"] == 0
    assert lines[-1]["train/loss_scale"] < 2.0**24
    assert all(0 < line["train/loss"] < 3 for line in lines)
    half["model"]["dtype"] = "float32"
    wanted = fit(half, tmp_path / "full")
    name = "test/accuracy"
    assert abs(found.metrics[name] - wanted.metrics[name]) <= 0.03
    assert found.metrics[name] > 0.8


@pytest.mark.slow
def test_resumes_with_the_same_scale(half, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "START", 2.0**30)
    half["train"] |= {"checkpoint_every": 6, "steps_per_dispatch": 2}
    whole = fit(half, tmp_path / "whole")

    def stop(progress):
        if progress.step >= 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(half, tmp_path / "cut", stop)
    resumed = fit(half, tmp_path / "cut")
    assert resumed.metrics == whole.metrics
    read = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")
    ]
    assert read[0] == read[1]


def test_a_floor_that_still_overflows_is_divergence(half, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "START", 4.0)
    half["optim"] = {"name": "sgd", "learning_rate": 1e30}
    half["model"]["batch_norm"] = False
    with pytest.raises(DivergedError, match="loss scale of float16"):
        fit(half, tmp_path / "run")


@pytest.mark.parametrize("execution_mode", ["vmap", pytest.param("scan", marks=pytest.mark.slow)])
def test_a_population_of_half_precision_trials(half, monkeypatch, execution_mode):
    monkeypatch.setattr(scaling, "START", 2.0**22)
    half["train"] |= {"steps": 12, "eval_every": 6}
    [one] = structure.build(half)
    rates = (1e-3, 3e-2)
    trials = [Trial(i, i, None, {"optim.learning_rate": rate}) for i, rate in enumerate(rates)]
    population = Population(one, trials, width=2, execution_mode=execution_mode, cache=Cache())
    population.train_all()
    scales = np.asarray(population.states.loss_scale.scale)
    assert (scales < 2.0**22).all() and (scales >= 1).all()
    for trial in trials:
        assert trial.status == "done" and len(trial.rows) == 2
        assert trial.rows[0]["train/skipped"] > 0
        assert all(row["train/loss"] > 0 for row in trial.rows)
