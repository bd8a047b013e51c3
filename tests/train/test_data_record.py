"""Data that change under a run are noticed: before it goes on, is evaluated or diagnosed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdlopt
from jdlopt.cli import main
from jdlopt.data import open_dataset
from jdlopt.data.notes import Note
from jdlopt.errors import WorkdirError
from jdlopt.evidence.diagnose import diagnose
from jdlopt.report import write_report
from jdlopt.train import data_record, serve
from jdlopt.train.experiment import Experiment

RNG = np.random.default_rng(0)
ROWS = [f"{a:.3f},{b:.3f},{'xy'[int(a + b > 0)]}" for a, b in RNG.normal(size=(90, 2))]


def table(path: Path, rows: list[str], header: str = "a,b,y") -> None:
    path.write_text("\n".join([header, *rows]) + "\n")


def config(path: Path) -> dict[str, Any]:
    return {
        "data": {"source": str(path), "target": "y", "batch_size": 16},
        "model": {"name": "linear"},
        "train": {"epochs": 2, "tensorboard": False},
        "mesh": {"data": 1},
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    table(tmp_path / "t.csv", ROWS[:60])
    jdlopt.fit(config(tmp_path / "t.csv"), tmp_path / "run")
    return tmp_path / "run"


def edited(rows: list[str]) -> list[str]:
    return [rows[0].replace(rows[0].split(",")[0], "9.999"), *rows[1:]]


CHANGES = {
    "it grew": (ROWS, r"train: \d+ examples there, \d+ now"),
    "it shrank": (ROWS[:50], r"train: \d+ examples there, \d+ now"),
    "other rows": (ROWS[30:], "other rows of the source|have other values"),
    "another order": (ROWS[:60][::-1], "other rows of the source|have other values"),
    "one value": (edited(ROWS[:60]), "have other values"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_table_is_noticed(
    change: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, words = CHANGES[change]
    same = serve.evaluate_run(run, "test")["metrics"]
    table(run.parent / "t.csv", rows)
    with pytest.raises(WorkdirError, match=words):
        serve.evaluate_run(run, "test")
    with pytest.raises(WorkdirError, match=words):
        jdlopt.fit(config(run.parent / "t.csv"), run)
    assert "are not those that the run was trained on" in str(diagnose(run))
    with pytest.raises(WorkdirError, match=words):
        jdlopt.open_run(run).evaluate("test")
    assert main(["eval", f"--workdir={run}", "--split=test"]) == 2
    assert "--changed-data=ok" in capsys.readouterr().err
    assert main(["eval", f"--workdir={run}", "--split=test", "--changed-data=ok"]) == 0
    table(run.parent / "t.csv", ROWS[:60])
    assert serve.evaluate_run(run, "test")["metrics"] == same


def test_prediction_needs_no_data_and_minds_no_change(run: Path) -> None:
    (run.parent / "t.csv").unlink()
    table(run.parent / "new.csv", [one.rpartition(",")[0] for one in ROWS[:5]], "a,b")
    assert len(serve.predict_run(run, run.parent / "new.csv").rows) == 5


def test_a_run_from_before_there_was_a_record_is_taken(run: Path) -> None:
    (run / "data.json").unlink()
    assert serve.evaluate_run(run, "test")["metrics"]
    jdlopt.fit(config(run.parent / "t.csv"), run)
    assert (run / "data.json").exists()  # from now on


def test_what_of_the_new_test_split_was_trained_on_is_counted(run: Path) -> None:
    before = set(jdlopt.open_run(run).splits["train"]["row"])
    table(run.parent / "t.csv", ROWS)
    now = open_dataset(config(run.parent / "t.csv")["data"])
    counts = [len(before & set(now.parts[split][1])) for split in ("validation", "test")]
    assert counts[1] > 0
    said = rf"trained on {counts[0]} of \d+ in validation and {counts[1]} of 18 in test as they"
    with pytest.raises(WorkdirError, match=said):
        serve.evaluate_run(run, "test")


def test_no_dataset_is_written_where_a_directory_says(run: Path) -> None:
    """Data are read from anywhere; a record of a directory says nowhere to write."""
    place = run.parent / "elsewhere"
    saved = json.loads((run / "config.json").read_text())
    saved["data"] |= {"source": "iris", "target": None, "data_dir": str(place)}
    (run / "config.json").write_text(json.dumps(saved))
    with pytest.raises(WorkdirError, match="nothing is written to a folder that"):
        serve.evaluate_run(run)
    assert "nothing is written" in str(diagnose(run))
    assert main(["train", f"--workdir={run}"]) == 2
    assert "nothing is written" in write_report(run).read_text()
    assert not place.exists()


def test_a_fingerprint_is_computed_once_of_an_open_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "t.csv", ROWS[:60])
    dataset = Experiment.build(config(tmp_path / "t.csv"), check=False).data
    found = data_record.fingerprint(dataset)
    monkeypatch.setattr(data_record, "_content", lambda *_: pytest.fail("computed again"))
    noted = dataset.noting([Note("guessed", "a thing")])
    assert data_record.fingerprint(dataset) == data_record.fingerprint(noted) == found
