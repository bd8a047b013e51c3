"""Scaled targets: the unit of a target changes nothing but the unit of what is predicted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jdlopt
from jdlopt import config as configs
from jdlopt.data.preprocess import target
from jdlopt.errors import ConfigError
from jdlopt.evidence.diagnose import diagnose
from jdlopt.study import space as spaces
from jdlopt.study.options import Options
from jdlopt.study.tune import tune
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5]) + 0.05 * RNG.normal(size=300)).astype(np.float32)
CONFIG: dict[str, Any] = {
    "data": {"batch_size": 16, "preprocess": {}},
    "model": {"name": "linear"},
    "optim": {"name": "adam", "learning_rate": 0.02},
    "train": {"epochs": 15, "tensorboard": False},
    "mesh": {"data": 1},
}


def own_loss(outputs, targets):
    """A loss of the user's own: it may need targets as they are."""
    return jnp.abs(outputs[:, 0] - targets)


own_loss.task = "regression"


def config(**keys: Any) -> dict[str, Any]:
    return configs.to_dict(configs.override(CONFIG, keys))


ANY_SHAPE = st.tuples(st.integers(2, 20), st.integers(1, 3))
FEW_SHAPES = st.sampled_from([(2, 1), (2, 3), (19, 2)])  # each is compiled


@pytest.mark.parametrize("method", target.METHODS)
@pytest.mark.parametrize(
    "shapes", [FEW_SHAPES, pytest.param(ANY_SHAPE, marks=pytest.mark.slow)], ids=["few", "any"]
)
@given(drawn=st.data())
def test_unscaled_is_the_inverse_of_scaled(
    method: str, shapes: st.SearchStrategy[tuple[int, int]], drawn: st.DataObject
) -> None:
    numbers = st.floats(-1e6, 1e6, width=32)
    targets = drawn.draw(hnp.arrays(np.float32, shapes, elements=numbers))
    state = target.fit(targets, method)
    there = target.scaled(state, jnp.asarray(targets))
    back = np.asarray(target.unscaled(state, there))
    size = np.abs(targets).max() if method != "log" else np.abs(targets)
    np.testing.assert_allclose(back, targets, atol=1e-4 * np.max(size) + 1e-4)
    one = target.fit(targets[:, 0], method)
    np.testing.assert_allclose(
        target.scaled(one, jnp.asarray(targets[:, 0])), there[:, 0], rtol=1e-5
    )


@pytest.mark.parametrize("method", [*target.METHODS, None])
def test_each_output_of_the_training_split_gets_its_own_scale(method: str | None) -> None:
    values = np.stack([Y, 1e5 * np.exp(Y), -3 * Y], axis=1)
    state = target.fit(values, method)
    there = np.asarray(target.scaled(state, jnp.asarray(values, jnp.float32)))
    if method in ("standard", "log"):
        np.testing.assert_allclose(there.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(there.std(0), 1, atol=1e-4)
    if method is None:
        assert state == {} and (there == values.astype(np.float32)).all()


@pytest.mark.parametrize(
    "unit",
    [
        (1e5, 2.5e5),
        *(
            pytest.param(unit, marks=pytest.mark.slow)
            for unit in ((1.0, 0.0), (1e-4, 0.0), (1e3, -7.0))
        ),
    ],
)
def test_another_unit_gives_the_same_model(unit: tuple[float, float]) -> None:
    factor, offset = unit
    plain = jdlopt.fit(config(), data=(X, Y))
    other = jdlopt.fit(config(), data=(X, (factor * Y + offset).astype(np.float32)))
    for name in ("validation/loss", "validation/r2", "test/r2", "test/loss"):
        assert other.metrics[name] == pytest.approx(plain.metrics[name], rel=1e-2, abs=1e-4)
    for name in ("rmse", "mae"):
        expected = abs(factor) * plain.metrics[f"test/{name}"]
        assert other.metrics[f"test/{name}"] == pytest.approx(expected, rel=1e-2)
    assert other.metrics["test/r2"] > 0.99
    np.testing.assert_allclose(
        other.predict(X[:20]).values.ravel(),
        factor * plain.predict(X[:20]).values.ravel() + offset,
        rtol=1e-2, atol=0.02 * abs(factor),
    )  # fmt: skip


@pytest.mark.slow
def test_every_verb_speaks_in_the_targets_unit(tmp_path: Path) -> None:
    prices = (1e5 * Y + 2.5e5).astype(np.float32)
    np.savez(tmp_path / "d.npz", X=X, y=prices)
    raw = config(**{"data.source": str(tmp_path / "d.npz"), "model.ensemble": 2,
                    "data.augment.jitter": 0.01, "train.epochs": 40})  # fmt: skip
    run = jdlopt.fit(raw, tmp_path / "run")
    assert run.metrics["test/r2"] > 0.98 and run.metrics["validation/loss"] < 0.05
    found = serve.evaluate_run(tmp_path / "run", "test", tta=2)["metrics"]
    assert found["test/r2"] == pytest.approx(run.metrics["test/r2"], abs=0.01)
    np.savez(tmp_path / "new.npz", X=X[:50])
    said = serve.predict_run(tmp_path / "run", tmp_path / "new.npz")
    assert np.abs(said.values.ravel() - prices[:50]).mean() < 0.2 * prices.std()
    opened = jdlopt.open_run(tmp_path / "run")
    np.testing.assert_allclose(opened.predict(X[:50]).values, said.values, rtol=1e-5)
    assert opened.evaluate("test")["rmse"] == pytest.approx(run.metrics["test/rmse"], rel=1e-4)
    from jdlopt.report.run import examine

    outcome = examine(tmp_path / "run", serve.run_config(tmp_path / "run"))
    assert np.corrcoef(outcome.outputs.ravel(), outcome.targets.ravel())[0, 1] > 0.98
    assert np.abs(outcome.outputs.ravel() - outcome.targets).mean() < 0.2 * prices.std()


@pytest.mark.slow
def test_folds_learn_their_own_scale_and_share_a_program(tmp_path: Path) -> None:
    prices = (1e5 * Y + 2.5e5).astype(np.float32)
    np.savez(tmp_path / "d.npz", X=X, y=prices)
    raw = config(**{"data.source": str(tmp_path / "d.npz"), "train.metrics": ("r2", "rmse")})
    options = Options(trials=2, folds=3, workers=1, keep=0, objectives=("validation/r2",))
    space = {"optim.learning_rate": spaces.log_uniform(0.02, 0.05)}
    found = tune(raw, space, tmp_path / "study", options).record
    assert all(one["values"][0] > 0.98 for one in found["trials"])
    scales = []
    for fold in range(3):
        made = Experiment.build({**raw, "data": {**raw["data"], "folds": 3, "fold": fold}})
        scales.append(float(made.learnt[target.TARGET]["shift"][0]))
    assert len(set(scales)) == 3


@pytest.mark.slow
def test_diagnosis_names_a_target_that_is_not_scaled(tmp_path: Path) -> None:
    prices = (1e5 * Y + 2.5e5).astype(np.float32)
    np.savez(tmp_path / "d.npz", X=X, y=prices)
    raw = config(**{"data.source": str(tmp_path / "d.npz"), "train.epochs": 3,
                    "data.preprocess.target_scale": None})  # fmt: skip
    assert jdlopt.fit(raw, tmp_path / "run").metrics["test/r2"] < 0
    found = diagnose(tmp_path / "run")["findings"]
    assert found[0]["name"] == "target_scale" and found[0]["level"] == "serious"
    assert "underfitting" not in {one["name"] for one in found}


def test_the_default_is_for_regressions_with_a_bundled_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "own_losses", sys.modules[__name__])

    def scale(source: str, **keys: Any) -> str | None:
        raw = config(**{"data.source": source, **keys})
        return Experiment.build(raw).config.data.preprocess.target_scale

    assert scale("diabetes") == scale("diabetes", **{"loss.name": "huber"}) == "standard"
    assert scale("iris") is None
    assert scale("diabetes", **{"data.preprocess.target_scale": None}) is None
    assert scale("diabetes", **{"data.preprocess.target_scale": configs.Override("None")}) is None
    assert scale("diabetes", **{"loss.name": "own_losses:own_loss"}) is None
    with pytest.raises(ConfigError, match=r"target_scale: is for numbers"):
        scale("iris", **{"data.preprocess.target_scale": "log"})


def test_a_run_from_before_there_was_a_scale_has_none(tmp_path: Path) -> None:
    raw = config(**{"data.source": "diabetes", "data.preprocess.target_scale": None})
    run = jdlopt.fit(raw, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    del record["data"]["preprocess"]["target_scale"]
    path.write_text(json.dumps(record))
    found = serve.evaluate_run(tmp_path / "run", "test")["metrics"]
    assert found["test/rmse"] == pytest.approx(run.metrics["test/rmse"], rel=1e-5)
    assert jdlopt.fit(raw, tmp_path / "run").status == "done"
