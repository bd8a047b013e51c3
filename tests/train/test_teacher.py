"""Distillation: runs that learn from other runs, and what they can't learn from."""

from __future__ import annotations

import json
import operator
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data import given
from jdlopt.errors import ConfigError, UserError, WorkdirError
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.trial import Trial
from jdlopt.train import loop
from jdlopt.train.components import clean_given
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.predict import taught
from jdlopt.train.run import open_run
from jdlopt.train.schema import resolve_data
from jdlopt.train.step import TEACHER

CONFIG: dict[str, Any] = {
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8, 6)},
    "optim": {"name": "adam", "learning_rate": 0.01},
    "train": {"steps": 12, "tensorboard": False, "evaluate_test": False, "steps_per_dispatch": 4,
              "eval_every": 6},
}  # fmt: skip


def config_of(**changes: Any) -> dict[str, Any]:
    plain = {key.replace("__", "."): value for key, value in changes.items()}
    return configs.to_dict(configs.override(CONFIG, plain))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two teachers of one study's shape."""
    place = tmp_path_factory.mktemp("teachers")
    fit(config_of(), place / "study/trials/0000")
    fit(config_of(seed=1, model__features=(5,), train__steps=18), place / "study/trials/0001")
    return place


def taught_by(place: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """A config that learns from the first teacher, or from those named."""
    runs = tuple(str(place / one) for one in names) or str(place / "study/trials/0000")
    return config_of(**{"loss__distill.teacher": runs, "seed": 3, **changes})


def batch_of(experiment: Experiment, count: int = 16) -> dict[str, Any]:
    arrays = experiment.data.read("train")
    inputs = jax.tree.map(lambda leaf: leaf[:count], arrays.inputs)
    return {"inputs": inputs, "targets": arrays.targets[:count]}


def assert_close(one: Any, other: Any, **tolerance: float) -> None:
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-6}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def trained(run: Any) -> Any:
    return jax.tree.map(np.asarray, run.state.params)


def test_without_a_teacher_a_config_is_what_it_was():
    plain = Experiment.build(config_of(), check=False)
    off = Experiment.build(config_of(**{"loss__distill.teacher": None}), check=False)
    assert "distill" not in off.config.to_dict()["loss"]
    assert configs.fingerprint(off.config) == configs.fingerprint(plain.config)
    assert jax.tree.structure(off.hparams) == jax.tree.structure(plain.hparams)


@pytest.mark.slow
def test_with_weight_0_it_is_trained_as_without(place: Path):
    alone = fit(config_of(seed=3))
    beside = fit(taught_by(place, **{"loss__distill.weight": 0.0}))
    assert_close(trained(alone), trained(beside))
    with_it = fit(taught_by(place, **{"loss__distill.weight": 1.0}))
    assert not np.allclose(*(jax.tree.leaves(trained(one))[0] for one in (alone, with_it)))


@pytest.mark.parametrize("names", [(), ("study:2",)])
def test_what_it_says_once_is_what_it_says_in_the_step(place: Path, names: tuple[str, ...]):
    experiment = Experiment.build(taught_by(place, *names), check=False)
    state, batch = experiment.init(0), batch_of(experiment)
    said = taught(experiment, batch["inputs"])
    assert said is not None
    steps = [experiment.train_step(state, one) for one in (batch, {**batch, TEACHER: said})]
    assert_close(steps[0][0].params, steps[1][0].params)
    assert_close(*(one[1]["loss"] for one in steps))


def test_an_ensemble_says_its_mean_probabilities(place: Path):
    names = ("study/trials/0000", "study/trials/0001")
    inputs = batch_of(Experiment.build(config_of(), check=False))["inputs"]
    said = []
    for chosen in (names[:1], names[1:], names):
        found = taught(Experiment.build(taught_by(place, *chosen), check=False), inputs)
        assert found is not None
        said.append(jax.nn.softmax(found.outputs))
    assert_close((said[0] + said[1]) / 2, said[2])


def test_temperature_and_weight_are_traced(place: Path):
    experiment = Experiment.build(taught_by(place), check=False)
    state, batch, losses = experiment.init(0), batch_of(experiment), set()
    step = jax.jit(experiment.train_step)
    for temperature, weight in ((1.0, 0.5), (4.0, 0.5), (4.0, 0.9)):
        raw = taught_by(place, **{"loss__distill.temperature": temperature,
                                  "loss__distill.weight": weight})  # fmt: skip
        hparams = Experiment.build(raw, check=False).hparams
        losses.add(float(step(state.replace(hparams=hparams), batch)[1]["loss"]))
    assert len(losses) == 3 and step._cache_size() == 1


@pytest.mark.slow
def test_a_population_trains_as_each_alone(place: Path):
    raw = taught_by(place, **{"loss__distill.features": ("dense_0",)})
    (shared,) = structure.build(raw)
    assert shared.data is not None and TEACHER in shared.data
    points = [{"loss.distill.temperature": 2.0}, {"loss.distill.weight": 0.9}]
    trials = [Trial(number, 3 + number, None, one) for number, one in enumerate(points)]
    made = Population(shared, trials, width=2, execution_mode="vmap", cache=Cache())
    made.train_all()
    for number, point in enumerate(points):
        alone = fit(configs.override(raw, {**point, "seed": 3 + number}))
        row = jax.tree.map(operator.itemgetter(made.rows.index(number)), made.states.params)
        assert_close(trained(alone), row, rtol=1e-4, atol=1e-5)


def test_an_augmented_batch_is_shown_to_the_teacher(place: Path):
    raw = taught_by(place, **{"data__augment.mixup": 0.4})
    experiment = Experiment.build(raw)
    state, batch = experiment.init(0), batch_of(experiment)
    assert taught(experiment, batch["inputs"]) is None
    assert experiment.components.teacher is not None
    seen = experiment.components.preprocess(state.preprocess, batch["inputs"])
    said = experiment.components.teacher.says(experiment.components, state, batch, seen)
    plain = Experiment.build(taught_by(place), check=False)
    once = taught(plain, batch["inputs"])
    assert once is not None
    assert_close(said.outputs, once.outputs)
    assert np.isfinite(experiment.train_step(state, batch)[1]["loss"])
    other = {"data__preprocess.scale": "minmax", "data__augment.mixup": 0.4}
    with pytest.raises(ConfigError, match=r"sees the batches that data\.augment makes"):
        Experiment.build(taught_by(place, **other))
    other.pop("data__augment.mixup")
    Experiment.build(taught_by(place, **other))  # sees the examples as its own run did


@pytest.mark.slow
def test_layers_become_like_the_teachers(place: Path):
    names = {"loss__distill.features": ("dense_1",), "loss__distill.weight": 0.0,
             "loss__distill.feature_weight": 0.0}  # fmt: skip
    for features in ((8, 6), (8, 3)):  # as wide as the teacher's, and not
        losses = []
        for weight in (0.0, 1.0):
            changes = {**names, "loss__distill.feature_weight": weight}
            experiment = Experiment.build(taught_by(place, model__features=features, **changes))
            state, batch = experiment.init(0), batch_of(experiment)
            state = state.replace(hparams=experiment.hparams)
            losses.append(float(experiment.train_step(state, batch)[1]["loss"]))
        assert losses[1] > losses[0]
    with pytest.raises(ConfigError, match="'nowhere' matches no layer of a Linen model"):
        Experiment.build(taught_by(place, **{"loss__distill.features": ("nowhere",)}))


@pytest.mark.slow
def test_a_model_learns_from_its_own_average():
    raw = config_of(**{"loss__distill.teacher": "ema", "optim__average.name": "ema",
                       "optim__average.decay": 0.5})  # fmt: skip
    run = fit(raw)
    assert run.status == "done" and "teachers" not in run.record
    with pytest.raises(ConfigError, match=r"there is none: set optim.average.name='ema'"):
        Experiment.build(config_of(**{"loss__distill.teacher": "ema"}))


@pytest.mark.slow
def test_what_it_learnt_from_is_recorded_and_kept(place: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    teacher = tmp_path / "teacher"
    fit(config_of(), teacher)
    begins = str(place / "study/trials/0000")  # of which nothing is read when it goes on
    raw = taught_by(tmp_path, "teacher", model__pretrained=begins)
    whole = fit(raw, tmp_path / "whole")
    assert [one["run"] for one in whole.record["teachers"]] == [str(teacher)]
    saved = loop._Run._save

    def stopped(self: Any) -> None:
        saved(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._Run, "_save", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(configs.override(raw, {"train.checkpoint_every": 6}), tmp_path / "cut")
    monkeypatch.undo()
    again = fit(configs.override(raw, {"train.checkpoint_every": 6}), tmp_path / "cut")
    assert_close(trained(whole), trained(again), rtol=0, atol=0)
    assert again.record["teachers"] == whole.record["teachers"]
    record = json.loads((tmp_path / "cut/teachers.json").read_text())
    record["runs"][0]["checkpoint"] = "another"
    (tmp_path / "cut/teachers.json").write_text(json.dumps(record))
    (tmp_path / "cut/result.json").unlink()
    with pytest.raises(WorkdirError, match="learns from another teacher"):
        fit(configs.override(raw, {"train.checkpoint_every": 6}), tmp_path / "cut")
    # without it, a finished run still predicts
    teacher.rename(tmp_path / "gone")
    assert whole.evaluate("validation")["loss"] == pytest.approx(whole.metrics["validation/loss"])


@pytest.mark.slow
def test_an_ensemble_becomes_one_model(place: Path):
    run = fit(taught_by(place, "study:2", **{"loss__distill.weight": 1.0, "train__steps": 60,
                                             "train__eval_every": 60}))  # fmt: skip
    assert len(run.record["teachers"]) == 2
    rows = run.experiment.data.read("validation").inputs
    mine = run.predict(rows).probabilities
    its = [open_run(place / f"study/trials/000{one}").predict(rows).probabilities for one in (0, 1)]
    before = Experiment.build(run.config, check=False).init(3)
    start = run.experiment.predict(before, rows).probabilities
    apart = [np.abs(one - np.mean(its, axis=0)).mean() for one in (mine, start)]
    assert apart[0] < 0.5 * apart[1]


@pytest.mark.slow
def test_a_fine_tuned_model_teaches_without_the_weights_that_it_began_with(
    place: Path, tmp_path: Path
):
    shutil.copytree(place / "study/trials/0000", tmp_path / "first")
    fit(config_of(model__pretrained=str(tmp_path / "first"), train__steps=6), tmp_path / "tuned")
    raw = taught_by(tmp_path, "tuned", **{"loss__distill.weight": 1.0})
    there = fit(raw)
    shutil.rmtree(tmp_path / "first")
    assert_close(trained(there), trained(fit(raw)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss__distill.teacher": "nowhere"}, "is no run's directory"),
        ({"data__source": "iris"}, "predicts something else: class_names"),
        ({"data__source": "breast_cancer"}, "predicts something else: class_names"),
        ({"data__split_seed": 5}, r"was trained on \d+ of the \d+ validation examples here"),
        ({"loss__distill.teacher": ()}, "an empty tuple"),
        ({"loss__distill.temperature": 0.0}, "must be greater than 0"),
        ({"train__cache_features": True}, "can't be had together with train.cache_features"),
    ],
)
def test_what_can_not_be_learnt_from(place: Path, changes: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        Experiment.build(taught_by(place, **changes))


def test_an_unfinished_teacher_is_refused(place: Path, tmp_path: Path):
    shutil.copytree(place / "study/trials/0000", tmp_path / "run")
    path = tmp_path / "run/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "interrupted"}))
    with pytest.raises(ConfigError, match="has not finished"):
        Experiment.build(taught_by(tmp_path, "run"))


TASKS: dict[str, tuple[Any, Any]] = {
    "regression": (np.arange(24, dtype=np.float32) * 10, {}),
    "labels": (np.arange(48).reshape(24, 2) // 3 % 2, {}),
    "one against the rest": (np.arange(24) % 2, {"loss": {"name": "binary_cross_entropy"}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_learnt(task: str, tmp_path: Path):
    targets, loss = TASKS[task]
    inputs = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    splits = dict.fromkeys(("train", "validation"), (inputs, targets))
    base = {**CONFIG, "data": {"batch_size": 8}, "model": {"name": "mlp", "features": (4,)}, **loss}
    fit(configs.override(base, {"train.steps": 1}), tmp_path / "teacher", data=splits)
    raw = configs.override(base, {"loss.distill.teacher": str(tmp_path / "teacher"),
                                  "loss.distill.weight": 1.0})  # fmt: skip
    raw = given.named(raw, splits)
    experiment = Experiment.build(raw, clean_given(resolve_data(raw), splits))
    said = taught(experiment, inputs)
    assert said is not None
    state, step = experiment.init(1), jax.jit(experiment.train_step)
    batch, losses = {"inputs": inputs, "targets": targets, TEACHER: said}, []
    for _ in range(200):
        state, measured = step(state, batch)
        losses.append(float(measured["loss"]))
    assert losses[-1] < 0.1 * losses[0]
