"""The front door: `import jdlopt`, data in memory, and what a run can do."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jdlopt
from jdlopt.errors import DataError, UserError, WorkdirError

CONFIG = {
    "data": {"batch_size": 32},
    "model": {"name": "mlp", "features": (8,)},
    "optim": {"name": "adamw", "learning_rate": 0.02},
    "train": {"steps": 30, "steps_per_dispatch": 5, "tensorboard": False},
    "mesh": {"data": 1},
}


@pytest.fixture(scope="module")
def points():
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(240, 4)).astype(np.float32)
    return inputs, np.array(["low", "high"])[(inputs[:, 0] > 0).astype(int)]


class ByIndex:
    """A dataset of a user's own, read by index."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


class InTurn:
    """One that is gone through, and knows its length."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def __iter__(self):
        return iter(zip(self.inputs, self.targets))


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, jdlopt; assert set(jdlopt.__all__) <= set(dir(jdlopt)); "
        "heavy = {'jax', 'flax', 'optax', 'pandas', 'ml_collections', 'numpy'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_name_of_the_front_door_is_there():
    assert all(callable(getattr(jdlopt, name)) for name in jdlopt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        jdlopt.fitt  # noqa: B018


@pytest.mark.slow
def test_all_ways_to_give_the_same_examples_train_the_same_model(points):
    given = [points, list(points), ByIndex(*points), InTurn(*points), {"train": points}]
    runs = [jdlopt.fit(CONFIG, data=one) for one in given]
    for run in runs:
        assert run.status == "done" and run.workdir is None
        assert run.metrics["test/accuracy"] > 0.8
        assert run.metrics == runs[0].metrics
        pd.testing.assert_frame_equal(run.history, runs[0].history)


def test_given_splits_are_kept(points):
    inputs, targets = points
    splits = {"train": (inputs[:150], targets[:150]), "test": (inputs[150:], targets[150:])}
    run = jdlopt.fit(CONFIG, data=splits)
    assert run.experiment.data.sizes["test"] == 90
    expected = run.evaluate(data=splits["test"])["accuracy"]
    assert run.metrics["test/accuracy"] == pytest.approx(expected)


def test_a_run_in_memory_is_the_run_of_a_directory(points, tmp_path):
    inputs, targets = points
    frame = pd.DataFrame(inputs, columns=["a", "b", "c", "d"])
    frame["kind"] = targets
    section = {"batch_size": 32, "target": "kind", "preprocess": {"scale": "standard"}}
    config = {**CONFIG, "data": section}
    ours = jdlopt.fit(config, data=frame)
    written = jdlopt.fit(config, tmp_path / "run", data=frame)
    opened = jdlopt.open_run(tmp_path / "run")
    assert not list(tmp_path.glob("memory*")) and opened.record == written.record
    assert ours.metrics == opened.metrics
    pd.testing.assert_frame_equal(ours.history, opened.history)
    new = frame.drop(columns="kind")[["d", "c", "b", "a"]]  # columns are found by name
    for run in (ours, opened):
        found = run.predict(new)
        assert (np.array(found.labels) == targets).mean() > 0.8
        np.testing.assert_allclose(
            found.probabilities, ours.predict(inputs).probabilities, rtol=1e-5, atol=1e-6
        )
        assert int(run.state.step) == 30
    whole = {name: ours.evaluate(name)["accuracy"] for name in ("train", "validation", "test")}
    assert all(0.8 < value <= 1 for value in whole.values())
    assert "done" in repr(opened) and "<table>" in opened._repr_html_()
    again = jdlopt.fit(config, tmp_path / "run", data=frame)  # it is not trained again
    assert again.record == written.record
    with pytest.raises(WorkdirError, match="holds a run of another config"):
        jdlopt.fit(config, tmp_path / "run", data=frame.iloc[:200])  # other data
    with pytest.raises(DataError, match="stands for data that a Python program gave"):
        opened.evaluate("test")


def test_from_nothing_to_a_pure_step(points):
    experiment = jdlopt.Experiment.build({**CONFIG, "data": {"source": "iris", "batch_size": 32}})
    train = experiment.data.read("train")
    batch = {"inputs": train.inputs[:32], "targets": train.targets[:32]}
    step = jax.jit(experiment.train_step, donate_argnums=0)
    state, measured = step(experiment.init(seed=0), batch)
    assert int(state.step) == 1 and np.isfinite(measured["loss"])
    states = jax.vmap(experiment.init)(jnp.arange(8))  # a population
    assert states.key.shape == (8,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "is int; expected arrays"),
        ((np.ones((4, 2)), [0, 1]), "4 inputs and 2 targets"),
        ({"trian": (np.ones((4, 2)), [0, 1, 0, 1])}, "Did you mean 'train'"),
        ([1, 2, 3], "expected a pair"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [0, 1]}), "data.target is not set"),
        (ByIndex([], []), "has no item"),
    ],
)
def test_what_is_no_data_is_said(data, message):
    with pytest.raises(DataError, match=message):
        jdlopt.fit(CONFIG, data=data)


def test_what_a_model_can_not_predict_for_is_said(points):
    run = jdlopt.fit(CONFIG, data=points)
    with pytest.raises(DataError, match=r"shape \(3, 5\); expected \[n, 4\]"):
        run.predict(np.ones((3, 5)))
    with pytest.raises(DataError, match="no example"):
        run.predict(np.ones((0, 4)))
    with pytest.raises(DataError, match=r"'hihg' is no class .* Did you mean 'high'"):
        run.evaluate(data=(points[0][:1], ["hihg"]))
    with pytest.raises(UserError, match="no split 'tset'"):
        run.evaluate("tset")


def test_other_targets_are_other_data_also_where_they_are_objects(points, tmp_path):
    inputs, targets = points
    objects = targets.astype(object)
    jdlopt.fit(CONFIG, tmp_path / "run", data=(inputs, objects))
    with pytest.raises(WorkdirError, match="holds a run of another config"):
        jdlopt.fit(CONFIG, tmp_path / "run", data=(inputs, objects[::-1]))


def test_items_hold_labels_with_a_delimiter_as_arrays_do(points):
    inputs, targets = points
    labels = np.array([f"{one}|any" if index % 2 else one for index, one in enumerate(targets)])
    config = {**CONFIG, "data": {"batch_size": 32, "label_delimiter": "|"}}
    runs = [jdlopt.fit(config, data=one) for one in (ByIndex(inputs, labels), (inputs, labels))]
    assert runs[0].experiment.spec.class_names == ("any", "high", "low")
    assert runs[0].metrics == runs[1].metrics
