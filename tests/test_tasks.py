"""Tasks end to end: several labels and several numbers in every verb, and a task of one's own."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from jdlopt.cli import main
from jdlopt.errors import ConfigError
from jdlopt.evidence.judged import tail_of
from jdlopt.tasks import TASKS, find_task
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment
from jdlopt.train.predictions import Predictions, as_columns, write_predictions

RNG = np.random.default_rng(0)
N = 120
X = RNG.normal(size=(N, 4)).astype(np.float32)
W = RNG.normal(size=(4, 3))
LABELS = (X @ W > 0.3).astype(np.int32)
NUMBERS = (X @ W[:, :2] + 0.1 * RNG.normal(size=(N, 2))).astype(np.float32)
TARGETS = {"multilabel": LABELS, "regression": NUMBERS}
NAMES = {"multilabel": ("action", "drama", "war"), "regression": ("height", "weight")}


def config(folder, task, **changes):
    names = np.array(NAMES[task])
    np.savez(folder / "made.npz", x=X, y=TARGETS[task], target_names=names)
    return {
        "data": {"source": str(folder / "made.npz"), "batch_size": 16, **changes.pop("data", {})},
        "model": {"name": "mlp", "features": (8,), **changes.pop("model", {})},
        "optim": {"name": "adam", "learning_rate": 0.02},
        "train": {"epochs": 4, "tensorboard": False},
        **changes,
    }


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    made = config(folder, request.param)
    (folder / "config.py").write_text(f"def get_config():\n    return {made!r}\n")
    words = ["train", f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    assert main([*words, "--json"]) == 0
    return request.param, folder


def test_a_regression_learns_by_the_error_that_it_watches():
    raw = {"data": {"source": "diabetes"}, "model": {"name": "linear"}, "mesh": {"data": 1}}
    losses = {
        (monitor, name): Experiment.build(
            {**raw, "train": {"monitor": monitor}, **({"loss": {"name": name}} if name else {})},
            check=False,
        ).config.loss.name
        for monitor in (None, "validation/mae", "validation/rmse")
        for name in (None, "huber")
    }
    assert losses["validation/mae", None] == "mae" and losses["validation/mae", "huber"] == "huber"
    assert losses[None, None] == losses["validation/rmse", None] == "mse"


def test_few_errors_that_make_most_of_the_squares_are_measured():
    errors = RNG.normal(size=10_000) ** 2
    assert tail_of(errors) == pytest.approx(0.085, abs=0.01)
    assert tail_of(np.append(errors, np.full(100, 1e4))) > 0.9
    assert tail_of(errors[:50]) is None and tail_of(np.zeros(1000)) is None


def test_a_run_has_the_metrics_of_its_task(trained, capsys):
    task, folder = trained
    found = json.loads((folder / "run" / "result.json").read_text())
    wanted = {"multilabel": "validation/f1_micro", "regression": "validation/loss"}[task]
    assert found["best"]["metric"] == wanted == TASKS[task].monitor
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["loss"]["name"] == TASKS[task].losses[0]  # nobody named one
    measured = {"multilabel": "test/f1_per_label", "regression": "test/rmse_per_output"}[task]
    assert len(found["metrics"][measured]) == len(NAMES[task])
    if task == "multilabel":
        assert 0 < found["metrics"]["train/hamming_loss"] < 0.5


def test_what_is_predicted_is_what_was_evaluated(trained):
    task, folder = trained
    experiment = Experiment.build(serve.run_config(folder / "run"))
    rows = experiment.data.parts["test"][1]
    np.savez(folder / "new.npz", x=X[rows])
    found = serve.predict_run(folder / "run", folder / "new.npz")
    evaluated = serve.evaluate_run(folder / "run", "test")["metrics"]
    if task == "multilabel":
        assert evaluated["test/f1_micro"] == pytest.approx(
            sk.f1_score(LABELS[rows], found.values, average="micro"), abs=1e-6
        )
        words = ["|".join(np.array(NAMES[task])[row == 1]) for row in found.values]
        assert found.labels == words
    else:
        error = sk.root_mean_squared_error(NUMBERS[rows], found.values)
        assert evaluated["test/rmse"] == pytest.approx(error, rel=1e-5)
        assert found.probabilities is None
    columns = as_columns(found)
    named = {"multilabel": "probability_war", "regression": "prediction_weight"}[task]
    assert list(columns)[:2] == ["row", list(columns)[1]] and len(columns[named]) == len(rows)
    write_predictions(found, folder / "predictions.npz")
    with np.load(folder / "predictions.npz") as saved:
        np.testing.assert_array_equal(saved["prediction"], found.values)


def test_arrays_hold_texts_and_lists_as_json(tmp_path):
    entities = [[{"text": "Zoë", "kind": "PER", "start": 0}], []]
    columns = {"prediction": ["Zoë (PER)", ""], "entities": entities}
    values = np.array([[1, 0], [0, 0]])
    found = Predictions(["0", "1"], values, columns["prediction"], None, ("O", "B"), columns)
    write_predictions(found, tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as saved:
        np.testing.assert_array_equal(saved["prediction"], values)
        assert saved["labels"].tolist() == columns["prediction"]
        assert [json.loads(one) for one in saved["entities"].tolist()] == entities


def test_reports_and_checks_have_the_task(trained, capsys):
    task, folder = trained
    assert main(["report", str(folder / "run")]) == 0
    page = (folder / "run" / "report.html").read_text()
    assert NAMES[task][1] in page
    words = [f"--config={folder / 'config.py'}"]
    capsys.readouterr()
    assert main(["data", "describe", *words, "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    key = {"multilabel": "classes", "regression": "targets"}[task]
    assert list(described["splits"]["train"][key]) == list(NAMES[task])
    assert [note["kind"] for note in described["notes"]] == ["guessed"]
    assert "data.task=" in described["notes"][0]["remedy"]
    assert main(["data", "check", *words, "--json"]) == 0
    picture = folder / "shown.png"
    assert main(["data", "show", *words, f"--output={picture}", "--examples=2"]) == 0


STEPS = {
    "mixup": {"data": {"augment": {"mixup": 0.4}}},
    "label smoothing": {"loss": {"name": "binary_cross_entropy", "label_smoothing": 0.1}},
    "class weights": {"loss": {"name": "binary_cross_entropy", "class_weights": "balanced"}},
    "ensemble": {"model": {"ensemble": 2}},
    "folds": {"data": {"folds": 3}},
}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_with_labels_and(tmp_path, what):
    experiment = Experiment.build(config(tmp_path, "multilabel", **STEPS[what]))
    state = experiment.init(0)
    arrays = experiment.data.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:16]), "targets": jnp.asarray(arrays.targets[:16])}
    state, measured = jax.jit(experiment.train_step)(state, batch)
    assert np.isfinite(measured["loss"])
    assert ("hamming_loss" in measured) == (what != "mixup")  # of mixed labels none is right
    shares = experiment.predict(state, batch["inputs"]).probabilities
    assert shares.shape == (16, 3) and bool((shares > 0).all()) and bool((shares < 1).all())


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("multilabel", {"loss": {"name": "cross_entropy"}}, "not for multilabel.*binary_cross_ent"),
        ("regression", {"loss": {"name": "binary_cross_entropy"}}, "not for regression.*huber"),
        ("regression", {"loss": {"name": "mse", "class_weights": "balanced"}}, "has no classes"),
        (
            "multilabel",
            {"loss": {"name": "binary_cross_entropy", "class_weights": (1.0, 2.0)}},
            "2 weights for 3 labels",
        ),
        ("multilabel", {"train": {"metrics": ("accuracy",)}}, "for classification, but the task"),
    ],
)
def test_what_a_task_can_not_have(tmp_path, task, changes, message):
    with pytest.raises(ConfigError, match=message):
        Experiment.build(config(tmp_path, task, **changes))


def test_a_task_of_ones_own_by_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(
        "import dataclasses\n"
        "from jdlopt.data.coders import CODERS\n"
        "from jdlopt.data.coding import Coder\n"
        "from jdlopt.tasks import TASKS\n\n"
        "def infer(values, what, names, delimiter):\n"
        "    found = CODERS['regression'].infer(values, what, names, delimiter)\n"
        "    return dataclasses.replace(found, task='own_task:RANKS')\n\n"
        "def encode(values, coding, what):\n"
        "    return CODERS['regression'].encode(values.argsort(axis=-1), coding, what)\n\n"
        "RANKS = dataclasses.replace(\n"
        "    TASKS['regression'], name='own_task:RANKS', coder=Coder(infer, encode),\n"
        "    losses=('mae',), metrics=(), judged='loss')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    experiment = Experiment.build(config(tmp_path, "regression", data={"task": "own_task:RANKS"}))
    assert experiment.config.loss.name == "mae"
    assert set(np.unique(experiment.data.targets("train"))) == {0.0, 1.0}
    _, measured = experiment.train_step(
        experiment.init(0), {"inputs": jnp.asarray(X[:16]), "targets": jnp.zeros((16, 2))}
    )
    assert np.isfinite(measured["loss"])


def test_unknown_tasks_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'regression'"):
        find_task("regresion")
    with pytest.raises(ConfigError, match="expected an instance of Task"):
        find_task("builtins:dict")
