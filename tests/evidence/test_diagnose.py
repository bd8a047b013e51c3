"""`jdlopt diagnose` on runs as they lie in their directories."""

from __future__ import annotations

import json

import pytest

from jdlopt.cli import main
from jdlopt.evidence.diagnose import diagnose
from jdlopt.train.loop import fit

TINY = {
    "mesh": {"data": 1},
    "data": {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8,)},
    "loss": {"name": "cross_entropy"},
    "optim": {"name": "adamw", "learning_rate": 0.01},
    "train": {"epochs": 4, "tensorboard": False, "monitor": "validation/loss"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "wine"
    fit(TINY, folder)
    return folder


def test_a_run_is_diagnosed(run, capsys):
    assert main(["diagnose", str(run), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    for part in ("opening the run", "checking the data", "testing learning rates"):
        assert part in printed.err  # also where it is no terminal
    saved = json.loads((run / "diagnosis.json").read_text())
    assert saved == {key: value for key, value in found.items() if key != "page"}
    assert {"curves", "gradients", "layers", "predictions", "rates", "inputs"} <= set(
        found["record"]
    )
    scores = [one["score"] for one in found["findings"]]
    assert scores == sorted(scores, reverse=True)
    # fifteen validation examples tell little
    assert "noisy_validation" in [one["name"] for one in found["findings"]]
    page = (run / "diagnosis.html").read_text()
    assert "Learning-rate range test" in page and "noisy validation" in page
    assert not (run / "test").exists() and "test/" not in json.dumps(found["record"]["run"])


def test_the_verb_speaks_to_people_and_takes_either_form(run, capsys):
    assert main(["diagnose", f"--workdir={run}"]) == 0
    told = capsys.readouterr()
    assert told.out == "" and "noisy validation" in told.err
    assert main(["diagnose", str(run), f"--workdir={run / 'other'}"]) == 2
    assert main(["diagnose"]) == 2
    assert "diagnose: takes a run's directory" in capsys.readouterr().err
    assert main(["diagnose", str(run / "nowhere")]) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_diverged_run_without_a_checkpoint_is_diagnosed(tmp_path, monkeypatch):
    from jdlopt.errors import DivergedError

    config = {**TINY, "optim": {"name": "sgd", "learning_rate": 1e20}}
    with pytest.raises(DivergedError):
        fit(config, tmp_path / "run")
    found = diagnose(tmp_path / "run")
    names = [one["name"] for one in found["findings"]]
    assert "divergence" in names and "learning_rate_too_low" not in names
    assert any("no checkpoint" in reason for reason in found["unseen"])


def test_a_run_whose_data_are_gone_is_diagnosed_by_its_records(run, tmp_path):
    import shutil

    there = tmp_path / "run"
    shutil.copytree(run, there)
    config = json.loads((there / "config.json").read_text())
    config["data"]["source"] = str(tmp_path / "gone.csv")
    (there / "config.json").write_text(json.dumps(config))
    found = diagnose(there)
    assert "can't be opened now" in found["unseen"][0]
    assert "validation/loss" in found["record"]["curves"]
