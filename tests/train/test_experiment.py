"""An experiment is built once: every verb computes with the same functions."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt import mesh as meshes
from jdlopt.errors import UserError
from jdlopt.evidence import probe, rates
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.trial import Trial
from jdlopt.train import memory, step
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit, fit_experiment
from jdlopt.train.state import CHANGED


@pytest.fixture
def traced(monkeypatch):
    """The components of each training step that was traced, while the test runs."""
    seen, original = [], step.train_step

    def watched(components, state, batch):
        seen.append(components)
        return original(components, state, batch)

    monkeypatch.setattr(step, "train_step", watched)
    return seen


@pytest.mark.slow
def test_every_verb_traces_the_one_step(config, traced, tmp_path):
    experiment = Experiment.build(config)
    assert len(traced) == 1  # the check before training is the step itself
    another = Experiment.build(config)  # an experiment's own step is traced once
    mesh = meshes.make_mesh(experiment.config.mesh)
    trials = [Trial(number=0, seed=0, fold=None, params={})]

    def population(mode):
        [shared] = structure.build(config)
        traced.clear()
        return Population(shared, trials, width=1, execution_mode=mode, cache=Cache()).compile()

    for run in (
        partial(memory.compiled_step, experiment, mesh),
        partial(memory.summary, another),
        partial(fit, config, tmp_path / "run"),
        partial(rates.range_test, experiment.config, experiment.data, 20, 1),
        *(partial(population, mode) for mode in ("vmap", "scan", "each")),
    ):
        traced.clear()
        run()
        assert traced


def test_a_step_is_traced_once_for_all_programs_that_hold_it(config, traced, tmp_path):
    experiment = Experiment.build(config)
    traced.clear()
    fit_experiment(experiment, tmp_path / "run")  # compiles it alone and in a loop
    assert len(traced) == 1
    memory.compiled_step(experiment, meshes.make_mesh(experiment.config.mesh))
    assert len(traced) == 1


def test_diagnosis_differentiates_what_a_step_minimises(config):
    config["model"]["dropout_rate"] = None
    experiment = Experiment.build(config)
    assert probe.objective is step.objective
    arrays = experiment.data.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:32]), "targets": jnp.asarray(arrays.targets[:32])}
    state = experiment.init(0)
    _, measured = jax.jit(experiment.train_step)(state, batch)
    stacked = jax.tree.map(lambda leaf: leaf[None], batch)
    found = probe.gradient_program(experiment, state, stacked, jax.random.key(3))(state)
    np.testing.assert_allclose(found.losses[0], measured["loss"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(sum(found.squares)[0]), measured["grad_norm"], rtol=1e-5)


def test_a_step_changes_the_fields_that_are_named_and_no_other(config):
    experiment = Experiment.build(config)
    arrays = experiment.data.read("train")
    batch = {"inputs": arrays.inputs[:32], "targets": arrays.targets[:32]}
    before = experiment.init(0)
    after, _ = jax.jit(experiment.train_step)(before, batch)
    assert set(CHANGED) < set(before.__dataclass_fields__)
    for name in set(before.__dataclass_fields__) - set(CHANGED):
        chex.assert_trees_all_equal(getattr(before, name), getattr(after, name))


def test_without_its_data_an_experiment_predicts_alike(config):
    config["data"]["preprocess"] = {"scale": "standard"}
    whole = Experiment.build(config)
    alone = Experiment.build(config, whole.spec, learnt_before=whole.learnt)
    state, inputs = whole.init(0), whole.data.read("test").inputs
    ours, theirs = (jax.jit(one.predict)(state, inputs) for one in (whole, alone))
    chex.assert_trees_all_equal(ours, theirs)
    with pytest.raises(UserError, match="without its data"):
        alone.data.read("train")
