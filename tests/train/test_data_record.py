"""Data that change under a run are noticed: before it goes on, is evaluated or diagnosed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdlopt
from jdlopt.cli import main
from jdlopt.errors import WorkdirError
from jdlopt.evidence.diagnose import diagnose
from jdlopt.train import serve

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
