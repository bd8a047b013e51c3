"""Soups: the mean of a run with itself is the run; statistics are those that the mean sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.compress.made import with_data_of
from jdlopt.compress.soup import estimated_anew, mean_of, soup, soup_runs
from jdlopt.errors import ConfigError
from jdlopt.train.loop import fit
from jdlopt.train.run import Run
from jdlopt.train.state import Weights

CONFIG: dict[str, Any] = {
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8,), "batch_norm": True},
    "optim": {"name": "adam", "learning_rate": 0.02},
    "train": {"epochs": 4, "tensorboard": False},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two that started apart."""
    place = tmp_path_factory.mktemp("soup")
    return [fit({**CONFIG, "seed": seed}, place / str(seed)) for seed in (0, 1)]


def test_the_mean_of_a_run_with_itself_is_the_run(runs: list[Run]):
    weights = runs[0].weights
    found = mean_of([weights, weights, weights])
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), found, weights
    )


def test_running_statistics_are_those_of_what_the_mean_sees(runs: list[Run]):
    experiment = with_data_of(runs[0], runs[0].config)
    shifted = runs[0].weights.replace(
        model_state=jax.tree.map(lambda leaf: leaf + 5.0, runs[0].weights.model_state)
    )
    anew = estimated_anew(experiment, shifted, 600)
    again = estimated_anew(experiment, runs[0].weights, 600)
    found, expected = (jax.tree.leaves(one.model_state) for one in (anew, again))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=0.05)
    assert all(jnp.array_equal(one, other) for one, other in zip(
        jax.tree.leaves(anew.params), jax.tree.leaves(shifted.params), strict=True))  # fmt: skip


def test_a_greedy_soup_is_never_worse_than_its_best(runs: list[Run], tmp_path: Path):
    experiment = with_data_of(runs[0], runs[0].config)
    metric = experiment.monitor
    found = soup(experiment, [run.weights for run in runs], greedy=True, steps=20)
    assert found.value >= max(run.metrics[metric] for run in runs)
    made = soup_runs(runs, tmp_path / "made", greedy=True, steps=20)
    assert made.record["made"]["how"]["taken"] == list(found.taken)
    assert made.metrics[metric] == pytest.approx(found.value)


def test_models_whose_masks_differ_are_refused():
    left = [jnp.array([True, False]), jnp.array([False, True])]
    weights = [Weights({"kernel": jnp.ones(2)}, {"pruning": {"masks": {"kernel": one}}}, {})
               for one in left]  # fmt: skip
    with pytest.raises(ConfigError, match=r"pruning/masks/kernel differs in number 2"):
        mean_of(weights)
    assert mean_of([weights[0], weights[0]]).params["kernel"].tolist() == [1.0, 1.0]


def test_what_is_no_soup_is_refused(runs: list[Run], tmp_path: Path):
    other = fit({**CONFIG, "model": {**CONFIG["model"], "features": (9,)}}, tmp_path / "wider")
    with pytest.raises(ConfigError, match=r"one structure: .*kernel is \(13, 8\) in the first"):
        soup_runs([runs[0], other], tmp_path / "made")
    with pytest.raises(ConfigError, match="at least one"):
        soup_runs([], tmp_path / "made")
    assert not (tmp_path / "made").exists()
