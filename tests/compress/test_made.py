"""A run that is made of another's weights is a run like any other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.cli import main
from jdlopt.compress.made import save_made
from jdlopt.errors import ConfigError, WorkdirError
from jdlopt.train.longer import LongerRunWarning
from jdlopt.train.loop import fit
from jdlopt.train.run import Run, open_run

CONFIG: dict[str, Any] = {
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8,)},
    "optim": {"name": "adam", "learning_rate": 0.01, "average": {"name": "ema"}},
    "train": {"epochs": 3, "tensorboard": False, "steps_per_dispatch": 1},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(CONFIG, tmp_path_factory.mktemp("made") / "source")


@pytest.fixture(scope="module")
def made(source: Run) -> Run:
    """The source with half its weights' size."""
    weights = dataclasses.replace(
        source.weights, params=jax.tree.map(lambda leaf: leaf / 2, source.weights.params)
    )
    assert source.workdir is not None
    how = {"method": "halving", "factor": 0.5}
    return save_made(source, source.config, weights, source.workdir.parent / "made", how)


def test_it_says_what_it_comes_from_and_has_its_own_metrics(source: Run, made: Run):
    assert made.workdir is not None and source.workdir is not None
    record = json.loads((made.workdir / "result.json").read_text())
    assert record == made.record and made.is_final and made.status == "done"
    assert record["made"]["from"] == str(source.workdir)
    assert record["made"]["how"] == {"method": "halving", "factor": 0.5}
    assert len(record["made"]["checkpoint"]) == 64
    for split in ("validation", "test"):
        again = made.evaluate(split)
        assert record["metrics"][f"{split}/loss"] == pytest.approx(again["loss"], rel=1e-6)
        assert record["metrics"][f"{split}/loss"] != source.metrics[f"{split}/loss"]
    assert made.history["validation/loss"].tolist() == [record["metrics"]["validation/loss"]]
    assert (made.workdir / "splits.csv").read_text() == (source.workdir / "splits.csv").read_text()


def test_its_weights_are_in_the_best_and_in_the_newest_checkpoint(source: Run, made: Run):
    half = jax.tree.map(lambda leaf: np.asarray(leaf) / 2, source.weights.params)
    newest = made.experiment.weights(made.state)
    for params in (made.weights.params, newest.params):
        jax.tree.map(np.testing.assert_array_equal, params, half)
    assert int(made.state.step) == source.record["steps"]


def test_a_run_starts_from_it(made: Run):
    raw = configs.override(CONFIG, {"model.pretrained": str(made.workdir), "train.steps": 1,
                                    "train.epochs": None})  # fmt: skip
    begun = fit(raw)
    assert begun.record["pretrained"]["file"] == str(made.workdir)


def test_a_directory_is_not_overwritten_and_other_weights_are_refused(source: Run, made: Run):
    assert made.workdir is not None
    with pytest.raises(WorkdirError, match="holds a run already"):
        save_made(source, source.config, source.weights, made.workdir, {"method": "none"})
    wider = configs.override(source.config, {"model.features": (9,)})
    place = made.workdir.parent / "wider"
    with pytest.raises(ConfigError, match=r"bias of shape \(9,\), and the weights \(8,\)"):
        save_made(source, wider, source.weights, place, {"method": "none"})
    assert not place.exists()


def test_an_unfinished_run_makes_nothing(source: Run, tmp_path: Path):
    unfinished = Run({**source.record, "status": "interrupted"}, source.workdir)
    with pytest.raises(WorkdirError, match="its training has not finished"):
        save_made(unfinished, source.config, source.weights, tmp_path / "none", {"method": "none"})


@pytest.mark.slow
def test_every_verb_takes_it(made: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    place = made.workdir
    assert place is not None
    rows = tmp_path / "rows.npz"
    np.savez(rows, inputs=np.zeros((3, 13), np.float32))
    for command in (
        ["eval", f"--workdir={place}", "--split=test", "--json"],
        ["predict", f"--workdir={place}", f"--input={rows}", "--json"],
        ["diagnose", str(place), "--json"],
        ["report", f"--workdir={place}"],
    ):
        assert main(command) == 0, capsys.readouterr().err
    assert "halving" in (place / "report.html").read_text()
    with pytest.warns(LongerRunWarning):
        longer = fit(configs.override(made.config, {"train.epochs": 4}), place)
    assert longer.record["steps"] > made.record["steps"]
    assert open_run(place).is_final
