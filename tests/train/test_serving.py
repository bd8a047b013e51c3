"""Trained runs at work: thresholds, inputs beside predictions, ensembles, and data that differ."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from samples import a_study, a_trial
from sklearn import metrics as sk

import jdlopt
from jdlopt.cli import main
from jdlopt.data.decision import Decision
from jdlopt.errors import DataError, UserError, WorkdirError
from jdlopt.metrics import Collector, make_collector
from jdlopt.report import write_report
from jdlopt.train import serve
from jdlopt.train.ensemble import evaluate_ensemble, predict_ensemble
from jdlopt.train.predictions import as_columns

RNG = np.random.default_rng(0)
N = 120
A, B = RNG.normal(size=(2, N)).round(3)
FRAME = pd.DataFrame(
    {
        "key": [f"{i:04d}" for i in range(N)],
        "a": A,
        "colour": np.where(B > 0, "red", "blue"),
        "ill": np.where(A + B + RNG.normal(size=N) > 1, "yes", "no"),
    }
)
OTHER = pd.DataFrame({"a": A, "b": B, "y": 1000 * A - 500 * B + 3000})


def config(path: Path, target: str, seed: int = 0, **data: Any) -> dict[str, Any]:
    return {
        "seed": seed,
        "data": {"source": str(path), "target": target, "batch_size": 32, **data},
        "model": {"name": "mlp", "features": (8,)},
        "optim": {"name": "adam", "learning_rate": 0.02},
        "train": {"epochs": 3, "loggers": ()},
        "mesh": {"data": 1},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a binary task, and two of a regression, of other seeds."""
    place = tmp_path_factory.mktemp("serving")
    FRAME.to_csv(place / "ill.csv", index=False)
    OTHER.to_csv(place / "other.csv", index=False)
    for seed in (0, 1):
        jdlopt.fit(config(place / "ill.csv", "ill", seed, id="key"), place / f"ill{seed}")
        jdlopt.fit(config(place / "other.csv", "y", seed), place / f"other{seed}")
    return place


# --- thresholds -----------------------------------------------------------------------------------


def measured(collector: Collector, probabilities: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    given, count = jnp.asarray(probabilities), len(true)
    leaves = collector.collect(
        given, given, jnp.asarray(true, "int32"), jnp.ones(count), jnp.zeros(count)
    )
    return collector.finish([leaves])


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("threshold", [None, 0.2, 0.5, 0.9])
def test_metrics_of_what_is_predicted_follow_the_threshold(positive, threshold):
    share = RNG.uniform(size=200).astype(np.float32)
    probabilities = np.stack([1 - share, share], axis=1)
    true = RNG.integers(0, 2, 200)
    cut = 0.5 if threshold is None else threshold
    guess = np.where(probabilities[:, positive] > cut, positive, 1 - positive)
    names = ["accuracy", "precision", "recall", "f1", "confusion_matrix", "average_precision",
             "expected_calibration_error"]  # fmt: skip
    collector = make_collector(names, "classification", 2, Decision(positive, threshold))
    found = measured(collector, probabilities, true)
    assert found["accuracy"] == pytest.approx(np.mean(guess == true))
    for name in ("precision", "recall", "f1"):
        score = getattr(sk, f"{name}_score")(true, guess, pos_label=positive, zero_division=0)
        assert found[name] == pytest.approx(score)
    assert found["confusion_matrix"] == sk.confusion_matrix(true, guess).tolist()
    area = sk.average_precision_score(true == positive, probabilities[:, positive])
    assert found["average_precision"] == pytest.approx(area)
    usual = make_collector(names, "classification", 2)
    same = measured(usual, probabilities, true)["expected_calibration_error"]
    assert found["expected_calibration_error"] == same  # of the likeliest class


def test_labels_have_thresholds_each_of_their_own():
    probabilities = RNG.uniform(size=(50, 3)).astype(np.float32)
    true = RNG.integers(0, 2, (50, 3))
    for threshold in (0.3, (0.2, 0.5, 0.7)):
        collector = make_collector(["f1_per_label"], "multilabel", 3, Decision(1, threshold))
        guess = probabilities > np.array(threshold)
        expected = sk.f1_score(true, guess, average=None)
        found = measured(collector, probabilities, true)["f1_per_label"]
        assert found == pytest.approx(expected)


@pytest.mark.slow
def test_flags_and_keys_decide_alike(place, tmp_path):
    made = config(place / "ill.csv", "ill", 0, id="key", positive="no", threshold=0.8)
    jdlopt.fit(made, tmp_path / "run")
    keyed = serve.evaluate_run(tmp_path / "run", "test", "newest")["metrics"]
    given = {"positive": "no", "threshold": 0.8}
    flagged = serve.evaluate_run(place / "ill0", "test", "newest", **given)["metrics"]
    for name in ("test/recall", "test/precision", "test/f1", "test/accuracy", "test/roc_auc"):
        assert flagged[name] == pytest.approx(keyed[name], abs=1e-6)
    one = serve.predict_run(tmp_path / "run", place / "ill.csv", "newest")
    other = serve.predict_run(place / "ill0", place / "ill.csv", "newest", **given)
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.slow
def test_flags_decide(place, tmp_path, capsys):
    flags = ["--positive=no", "--threshold=0.8", "--checkpoint=newest"]
    assert main(["eval", f"--workdir={place / 'ill0'}", "--split=test", *flags, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    plain = serve.evaluate_run(place / "ill0", "test", "newest")["metrics"]
    assert plain["test/recall"] != metrics["test/recall"]

    words = ["predict", f"--workdir={place / 'ill0'}", f"--input={place / 'ill.csv'}"]
    assert main([*words, *flags, f"--output={tmp_path / 'out.npz'}"]) == 0
    flagged = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(
        flagged["prediction"] == 0, flagged["probabilities"][:, 0] > np.float32(0.8)
    )
    assert flagged["threshold"] == 0.8
    capsys.readouterr()
    assert main([*words, "--threshold=x"]) == 2
    assert "--threshold: 'x' is no number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "given", "told"),
    [
        ("ill0", {"positive": "yess"}, r"--positive: 'yess' is no class. Did you mean 'yes'\?"),
        ("ill0", {"threshold": 1.2}, "expected a probability between 0 and 1"),
        ("ill0", {"threshold": (0.1, 0.2)}, "holds 2 numbers; expected one"),
        ("other0", {"threshold": 0.3}, "of two classes or labels; here there are numbers"),
        ("other0", {"positive": "x"}, "of two classes; here there are numbers"),
    ],
)
def test_nothing_to_decide_is_told(place, run, given, told):
    with pytest.raises(DataError, match=told):
        serve.evaluate_run(place / run, "test", **given)


# --- inputs beside predictions --------------------------------------------------------------------

STRANGE = '''key,colour,prediction,a,note
0007,red,mine,0.10,"=1+1, ""x"""
0003,green,,1e3,
0007,blue,NA,-2,"two
lines"
'''


def test_predictions_carry_their_inputs_row_by_row(place, tmp_path, capsys):
    (tmp_path / "new.csv").write_text(STRANGE)
    words = ["predict", f"--workdir={place / 'ill0'}", f"--input={tmp_path / 'new.csv'}"]
    assert main([*words, "--with-inputs"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert list(rows[0]) == [
        "row", "key", "colour", "input_prediction", "a", "note",
        "prediction", "probability_no", "probability_yes",
    ]  # fmt: skip
    assert [row["key"] for row in rows] == ["0007", "0003", "0007"]
    assert [row["a"] for row in rows] == ["0.10", "1e3", "-2"]  # as they are written
    assert [row["input_prediction"] for row in rows] == ["mine", "", "NA"]
    assert [row["note"] for row in rows] == ['\'=1+1, "x"', "", "two\nlines"]
    assert "categories that no training row has" in err and "'green'" in err
    assert "columns that the model was not trained on (2 columns): 'prediction'; 'note'" in err

    assert main([*words, "--json"]) == 0  # the id is always there
    columns = json.loads(capsys.readouterr().out)
    assert list(columns)[:2] == ["row", "key"] and columns["key"] == ["0007", "0003", "0007"]
    assert main([*words, "--with-inputs", f"--output={tmp_path / 'out.npz'}"]) == 0
    held = np.load(tmp_path / "out.npz")
    assert held["input_key"].tolist() == ["0007", "0003", "0007"]


def test_an_id_is_no_input_and_may_be_missing(place, tmp_path):
    experiment = serve.run_experiment(place / "ill0")
    assert experiment.spec.input.feature_names == ("a", "colour")
    (tmp_path / "new.csv").write_text("colour,a\nred,1\n")
    found = serve.predict_run(place / "ill0", tmp_path / "new.csv", with_inputs=True)
    assert list(as_columns(found))[:3] == ["row", "colour", "a"]
    assert any("data.id names a column" in note.what for note in found.notes)
    with pytest.raises(DataError, match=r"data.id: there is no column 'kye'. Did you mean 'key'\?"):
        jdlopt.fit(config(place / "ill.csv", "ill", id="kye"), tmp_path / "run")


def test_arrays_have_no_columns_and_parquet_keeps_its_types(place, tmp_path):
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 2), "float32"))
    with pytest.raises(DataError, match=r"--with-inputs: .* holds arrays"):
        serve.predict_run(place / "other0", tmp_path / "new.npz", with_inputs=True)
    frame = OTHER.head(2).assign(when=pd.to_datetime(["2024-01-01", None]), count=[1, 2])
    frame.to_parquet(tmp_path / "new.parquet")
    found = serve.predict_run(place / "other0", tmp_path / "new.parquet", with_inputs=True)
    assert found.given["when"] == ["2024-01-01 00:00:00", None] and found.given["count"] == [1, 2]


def test_numbers_in_another_notation_than_in_training_are_told(place, tmp_path):
    (tmp_path / "new.csv").write_text("a;b\n1,5;2\n2,5;3\n")
    notes = serve.predict_run(place / "other0", tmp_path / "new.csv").notes
    [note] = [one for one in notes if "another way than in training" in one.what]
    assert "'a'" in note.places[0] and note.count == 2


# --- ensembles ------------------------------------------------------------------------------------


def test_an_ensemble_of_one_is_the_run(place):
    for name, data in (("ill0", "ill.csv"), ("other0", "other.csv")):
        one = predict_ensemble([place / name], place / data)
        alone = serve.predict_run(place / name, place / data)
        np.testing.assert_array_equal(one.values, alone.values)
        assert one.labels == alone.labels and one.rows == alone.rows
        found = evaluate_ensemble([place / name], "test")
        expected = serve.evaluate_run(place / name, "test")["metrics"]
        assert found["metrics"] == found["models"][0]["metrics"]
        for metric, value in expected.items():
            np.testing.assert_allclose(found["metrics"][metric], value, rtol=1e-6)


def test_an_ensemble_is_the_mean_of_its_runs(place):
    runs = [place / "ill0", place / "ill1"]
    together = predict_ensemble(runs, place / "ill.csv")
    alone = [serve.predict_run(run, place / "ill.csv") for run in runs]
    mean = np.mean([one.probabilities for one in alone], axis=0)
    np.testing.assert_allclose(together.probabilities, mean, rtol=1e-6)
    np.testing.assert_array_equal(together.values, mean.argmax(axis=1))

    runs = [place / "other0", place / "other1"]
    together = predict_ensemble(runs, place / "other.csv")
    values = [serve.predict_run(run, place / "other.csv").values for run in runs]
    np.testing.assert_allclose(together.values, np.mean(values, axis=0), rtol=1e-5)
    np.testing.assert_allclose(together.spread, np.std(values, axis=0), rtol=1e-3, atol=1e-2)
    assert list(as_columns(together)) == ["row", "prediction", "spread"]
    found = evaluate_ensemble(runs, "test")
    rows = serve.experiment_with_data(runs[0]).data.parts["test"][1]
    error = sk.root_mean_squared_error(OTHER["y"].to_numpy()[rows], together.values[rows])
    assert found["metrics"]["test/rmse"] == pytest.approx(error, rel=1e-4)
    assert [one["metrics"] for one in found["models"]] == [
        pytest.approx(serve.evaluate_run(run, "test")["metrics"], rel=1e-5) for run in runs
    ]


def test_runs_that_predict_other_things_are_told(place):
    with pytest.raises(WorkdirError, match="predict other things: task"):
        predict_ensemble([place / "ill0", place / "other0"], place / "ill.csv")


@pytest.mark.slow
def test_runs_of_other_splits_or_inputs_predict_together_and_are_not_evaluated(place, tmp_path):
    made = config(place / "ill.csv", "ill", 2, id="key", split_seed=1)
    jdlopt.fit(made, tmp_path / "split")
    runs = [place / "ill0", tmp_path / "split"]
    assert len(predict_ensemble(runs, place / "ill.csv").rows) == N
    with pytest.raises(WorkdirError, match="are not those that the run was trained on"):
        evaluate_ensemble(runs, "test")
    fewer = config(place / "other.csv", "y", ignore=("b",))
    jdlopt.fit(fewer, tmp_path / "fewer")
    runs = [place / "other0", tmp_path / "fewer"]
    assert predict_ensemble(runs, place / "other.csv").values.shape == (N,)
    with pytest.raises(UserError, match="reads other inputs"):
        evaluate_ensemble(runs, "test")


@pytest.mark.slow
def test_the_best_trials_of_a_study_are_an_ensemble(place, tmp_path, capsys):
    study = tmp_path / "study"
    for number, run in ((1, "ill0"), (4, "ill1")):
        shutil.copytree(place / run, study / "trials" / f"{number:04d}")
    trials = [a_trial(n) | {"values": [v]} for n, v in ((0, 0.5), (1, 0.8), (4, 0.9))]
    (study / "study.json").write_text(json.dumps(a_study(trials)))
    words = ["eval", f"--ensemble={study}:2", "--split=test"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [Path(one["workdir"]).name for one in record["models"]] == ["0004", "0001"]
    assert main(words) == 0
    shown = capsys.readouterr().err
    assert "2 models" in shown and "ensemble" in shown and "model 2" in shown
    both = f"--ensemble={place / 'ill1'},{place / 'ill0'}"
    predict = ["predict", f"--input={place / 'ill.csv'}", "--json"]
    assert main([*predict, both]) == 0
    by_name = capsys.readouterr().out
    assert main([*predict, f"--ensemble={study}"]) == 0
    assert capsys.readouterr().out == by_name

    for words, told in (
        ([f"--ensemble={study}:3"], "0 is not kept as runs"),
        ([f"--ensemble={study}:3"], "with --keep=3"),
        ([f"--ensemble={study}:9"], "has 3 finished trials"),
        ([f"--ensemble={place / 'ill0'}:2"], "holds no study"),
        ([f"--ensemble={study}:2", f"--workdir={place / 'ill0'}"], "give one of the two"),
        ([], "jdlopt predict RUN"),
    ):
        assert main([*predict, *words]) == 2
        assert told in capsys.readouterr().err


# --- data and records that differ -----------------------------------------------------------------


def test_a_report_says_that_the_data_have_changed(place, tmp_path):
    shutil.copytree(place / "other0", tmp_path / "run")
    told = "are not those that the run was trained on"
    assert told not in write_report(tmp_path / "run").read_text()
    OTHER.head(100).to_csv(place / "other.csv", index=False)
    try:
        page = write_report(tmp_path / "run").read_text()
    finally:
        OTHER.to_csv(place / "other.csv", index=False)
    assert told in page and "examples there" in page


def test_records_of_another_version_are_read_or_told(place, tmp_path):
    shutil.copytree(place / "other0", tmp_path / "run")
    expected = serve.predict_run(tmp_path / "run", place / "other.csv").values
    path = tmp_path / "run/inputs.json"
    record = json.loads(path.read_text())
    assert record["preprocess"]["(target)"].pop("rest") is not None
    del record["dataset"]["decision"]
    path.write_text(json.dumps(record))
    np.testing.assert_allclose(
        serve.predict_run(tmp_path / "run", place / "other.csv").values, expected
    )
