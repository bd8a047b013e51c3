"""A class at each position of an example: a task and a model of one's own, in every verb's path."""

from __future__ import annotations

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

from jdlopt import losses
from jdlopt.cli import main
from jdlopt.data.coding import PAD, Coder, Coding
from jdlopt.errors import ConfigError, DataError
from jdlopt.metrics import make_collector
from jdlopt.metrics.leaves import LEAVES_OF, Leaf
from jdlopt.models import make_model
from jdlopt.tasks import Decoded, Task
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment

RNG = np.random.default_rng(3)
N, STEPS = 96, 10
X = RNG.normal(size=(N, STEPS, 2)).astype(np.float32)
SIGNS = (X.sum(axis=2) > 0).astype(np.int32)
SIGNS[np.arange(STEPS) >= RNG.integers(4, STEPS + 1, size=N)[:, None]] = PAD


class EachStep(nn.Module):
    """Classes of each step."""

    num_outputs: int
    positions: int = 0

    @nn.compact
    def __call__(self, inputs):
        """Maps sequences to a row of outputs a step, or one of all."""
        x = nn.Dense(8, name="body")(inputs)
        x = nn.relu(x)
        return nn.Dense(self.num_outputs, name="head")(x if self.positions else x.mean(1))


def infer(values, what, names, delimiter):
    """Returns the coding of classes at each step."""
    if values.ndim != 2:
        raise DataError(f"{what}: expected a class at each step.")
    return Coding("test_positions:SIGN", (0, 1), ("down", "up"), shape=(STEPS,), positions=1)


def told(targets, spec):
    """Returns the classes of all steps in words."""
    return [" ".join(spec.class_names[one] for one in row if one >= 0) for row in targets]


def decode(outputs, probabilities, spec):
    """Returns the likeliest class of each step."""
    classes = outputs.argmax(-1)
    return Decoded(classes, told(classes, spec))


def measured(outputs, targets):
    """Returns nothing."""
    return {}


SIGN = Task(
    name="test_positions:SIGN",
    coder=Coder(infer, lambda values, coding, what: values.astype(np.int32)),
    link="softmax",
    losses=("cross_entropy", "focal"),
    metrics=(),
    monitor="validation/loss",
    judged="loss",
    width=lambda spec, loss: spec.num_classes,
    measured=measured,
    decode=decode,
    columns=lambda decoded, probabilities, spec: {"prediction": decoded.labels},
    told=told,
)


def config(folder, **changes):
    np.savez(folder / "made.npz", x=X, y=SIGNS)
    return {
        "data": {
            "source": str(folder / "made.npz"),
            "task": "test_positions:SIGN",
            "batch_size": 16,
            **changes.pop("data", {}),
        },
        "model": {"name": "test_positions:EachStep", **changes.pop("model", {})},
        "optim": {"name": "adam", "learning_rate": 0.05},
        "train": {"epochs": 15, "tensorboard": False},
        "mesh": {"data": 1},
        **changes,
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("positions")
    (folder / "config.py").write_text(f"def get_config():\n    return {config(folder)!r}\n")
    words = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    assert main(["train", *words, "--json"]) == 0
    return folder


def test_a_run_predicts_a_class_at_each_position(trained, capsys):
    found = json.loads((trained / "run" / "result.json").read_text())
    assert found["metrics"]["validation/loss"] < 0.2
    new = RNG.normal(size=(5, STEPS, 2)).astype(np.float32)
    np.savez(trained / "new.npz", x=new)
    said = serve.predict_run(trained / "run", trained / "new.npz", allow_code=True)
    assert said.values.shape == (5, STEPS) and said.probabilities.shape == (5, STEPS, 2)
    assert (said.values == (new.sum(axis=2) > 0)).mean() > 0.9
    assert said.columns["prediction"][0].split()[0] in ("up", "down")


@pytest.mark.parametrize("verb", ["report", "eval", "diagnose", "data"])
def test_verbs_know_positions(trained, verb, capsys):
    run, made = str(trained / "run"), f"--config={trained / 'config.py'}"
    words = {
        "report": [run, "--allow-code"],
        "eval": [f"--workdir={run}", "--allow-code", "--json"],
        "diagnose": [run, "--allow-code", "--json"],
        "data": ["describe", made],
    }[verb]
    assert main([verb, *words]) == 0, capsys.readouterr().err
    out = capsys.readouterr()
    if verb == "report":
        assert "up down" in (trained / "run" / "report.html").read_text()
    if verb == "data":
        assert "at each position" in out.err + out.out


def test_a_loss_of_rows_is_the_mean_over_positions_with_a_target():
    outputs = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    targets = RNG.integers(-1, 3, size=(4, 5)).astype(np.int32)
    targets[0] = PAD
    loss = losses.make_loss({"name": "cross_entropy"}, positions=1)
    found = loss.per_example(jnp.asarray(outputs), jnp.asarray(targets), {})
    each = optax.softmax_cross_entropy_with_integer_labels(outputs, np.maximum(targets, 0))
    real = targets >= 0
    wanted = [row[some].mean() if some.any() else 0.0 for row, some in zip(each, real, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    weights = np.array([1.0, 2.0, 0.5])
    weighted = losses.make_loss({"name": "cross_entropy"}, weights, positions=1)
    of_each = weights[targets[real]]
    value = weighted.objective(jnp.asarray(outputs), jnp.asarray(targets), {}, {})
    np.testing.assert_allclose(value, (of_each * each[real]).sum() / of_each.sum(), rtol=1e-5)


def test_padded_positions_have_no_gradient():
    outputs = jnp.asarray(RNG.normal(size=(2, 3, 2)), jnp.float32)
    targets = jnp.array([[1, PAD, 0], [PAD, PAD, PAD]])
    loss = losses.make_loss({"name": "focal", "gamma": 2.0}, positions=1)
    found = jax.grad(lambda o: loss.objective(o, targets, {}, {"gamma": 2.0}))(outputs)
    assert np.isfinite(found).all() and (np.asarray(found)[np.asarray(targets) < 0] == 0).all()
    assert (np.asarray(found)[0, 0] != 0).any()


def test_counts_of_any_rank_are_added_over_batches_and_examples_joined(monkeypatch):
    def cells(batch):
        guesses, real = batch.outputs.argmax(-1), (batch.targets >= 0) & batch.real[:, None]
        where = jnp.where(real, batch.targets * 3 + guesses, 9)
        return jnp.bincount(where.ravel(), length=10)[:9].reshape(3, 3)

    monkeypatch.setitem(LEAVES_OF, "cells", {"cells": Leaf(cells, 2, counts=True)})
    from jdlopt import metrics

    confusion = metrics.Metric(("cells",), lambda split: split.leaves["cells"], ("cells",), None)
    monkeypatch.setitem(metrics.METRICS, "cells", confusion)
    collector = make_collector(["cells"], "cells", 3)
    assert collector.gathered == {"real", "loss"}
    outputs = RNG.normal(size=(7, 4, 3)).astype(np.float32)
    targets = RNG.integers(-1, 3, size=(7, 4))
    batches = []
    for start in (0, 4):
        rows = slice(start, start + 4)
        one, true = outputs[rows], targets[rows]
        short = 4 - len(one)
        one = np.concatenate([one, np.zeros((short, 4, 3), np.float32)])
        true = np.concatenate([true, np.zeros((short, 4), int)])
        weights = np.arange(4) < 4 - short
        batch = map(jnp.asarray, (one, true, weights.astype(np.float32), np.zeros(4, np.float32)))
        outputs_of, targets_of, weights_of, losses_of = batch
        batches.append(collector.collect(outputs_of, None, targets_of, weights_of, losses_of))
    real = targets >= 0
    wanted = sk.confusion_matrix(targets[real], outputs.argmax(-1)[real], labels=range(3))
    np.testing.assert_array_equal(collector.finish(batches)["cells"], wanted)


def test_what_has_no_positions_is_refused_in_one_line(trained, tmp_path):
    with pytest.raises(ConfigError, match="'mlp' has one row of outputs an example"):
        make_model({"name": "mlp", "features": (8,)}, 2, positions=1)
    with pytest.raises(ConfigError, match=r"for each pixel\. Take one of resnet, unet, or"):
        make_model({"name": "mlp", "features": (8,)}, 2, positions=2)
    with pytest.raises(ConfigError, match=r"'gru' has a row of outputs for each step; .* pixel"):
        make_model({"name": "gru"}, 2, positions=2)
    with pytest.raises(ConfigError, match=r"'unet' has a row of outputs for each pixel; .* step"):
        make_model({"name": "unet"}, 2, positions=1)
    flat = make_model({"name": "test_positions:EachStep"}, 3)
    assert flat.init(jax.random.key(0), jnp.ones((2, 4, 2)), {})
    raw = config(tmp_path, data={"augment": {"mixup": 0.2}})
    with pytest.raises(ConfigError, match="mixes the targets of examples"):
        Experiment.build(raw)
    raw = config(tmp_path, data={"augment": {"time_shift": 0.2}})
    with pytest.raises(ConfigError, match="leaves the targets of these where they are"):
        Experiment.build(raw)
    with pytest.raises(DataError, match="one at each position"):
        Experiment.build(config(tmp_path, data={"threshold": 0.3}))
