"""The last training of a config that has been chosen: on the validation split too."""

from __future__ import annotations

import json

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

import jdlopt
from jdlopt.data import check, open_dataset
from jdlopt.errors import ConfigError, DataError
from jdlopt.study import space
from jdlopt.train.tracker import Best

BOTH = "train_and_validation"
PLAIN = {
    "data": {"source": "iris", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "linear"},
    "train": {"epochs": 3, "tensorboard": False},
    "mesh": {"data": 1},
}
CONFIG = {**PLAIN, "data": {**PLAIN["data"], "train_on": BOTH}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return jdlopt.fit(CONFIG, tmp_path_factory.mktemp("both") / "run")


def test_the_validation_examples_are_trained_on_and_the_test_examples_stay(run):
    plain = open_dataset(PLAIN["data"])
    both = open_dataset(CONFIG["data"])
    rows = np.sort(np.concatenate([plain.rows("train"), plain.rows("validation")]))
    np.testing.assert_array_equal(both.rows("train"), rows)
    for split in ("validation", "test"):
        np.testing.assert_array_equal(both.rows(split), plain.rows(split))
    assert run.splits["train"]["row"].tolist() == rows.tolist()
    scaler = StandardScaler().fit(both.read("train").inputs)
    learnt = [leaf for leaf in jax.tree.leaves(run.experiment.learnt) if np.shape(leaf) == (4,)]
    assert any(np.allclose(leaf, scaler.mean_, rtol=1e-5) for leaf in learnt)


def test_the_last_weights_are_kept_and_the_run_says_why(run):
    result = json.loads((run.workdir / "result.json").read_text())
    assert result["best"]["step"] == run.experiment.total_steps
    said = [note for note in result["data_notes"] if "train_on" in note["what"]]
    assert [(note["kind"], note["count"]) for note in said] == [
        ("changed", run.experiment.spec.sizes["validation"])
    ]


def test_no_evaluation_before_the_last_is_the_best_where_a_training_goes_on():
    best = Best("validation/loss", False, first=10)
    for step, value in ((4, 0.1), (8, 0.5), (10, 0.4)):
        best = best.after(step, value)
    assert (best.step, best.value) == (10, 0.4)


@pytest.mark.parametrize("verb", ["compare", "improve", "tune", "diagnose"])
def test_what_chooses_by_validation_refuses_it(verb, run, tmp_path):
    calls = {
        "compare": lambda: jdlopt.compare(CONFIG, CONFIG | {"seed": 3}, tmp_path / "a"),
        "improve": lambda: jdlopt.improve(CONFIG, tmp_path / "b"),
        "tune": lambda: jdlopt.tune(
            CONFIG, {"optim.learning_rate": space.log_uniform(1e-3, 1e-1)}, tmp_path / "c"
        ),
        "diagnose": lambda: jdlopt.diagnose(run.workdir),
    }
    with pytest.raises(ConfigError, match=r"data\.train_on='train_and_validation': the validation"):
        calls[verb]()


def test_patience_and_a_validation_split_of_the_source_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.patience: data\.train_on"):
        jdlopt.fit({**CONFIG, "train": {**CONFIG["train"], "patience": 2}})
    frame = pd.DataFrame({"a": np.arange(30.0), "y": ["p", "q"] * 15})
    for name in ("t", "v"):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    data = {"source": str(tmp_path / "t.csv"), "target": "y", "train_on": BOTH}
    with pytest.raises(DataError, match="has a validation split of its own"):
        open_dataset({**data, "validation_source": str(tmp_path / "v.csv")})


def test_a_check_of_the_data_compares_the_splits_as_they_are_without_it():
    found = [check.check_source(config["data"]) for config in (PLAIN, CONFIG)]
    assert found[0].findings == found[1].findings
