"""A table of numbers, images and texts, from the file to predictions, a study and a report."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from mixed_tables import make_table

import jdlopt
from jdlopt import cli
from jdlopt.errors import ConfigError, UserError
from jdlopt.evidence.improve import improve
from jdlopt.train.experiment import Experiment

INPUTS = {"photo": ("photo",), "note": ("note",), "table": ("age", "colour")}


def config_of(path, **data):
    return {
        "data": {
            "source": str(path),
            "target": "size",
            "validation_fraction": 0.3,
            "batch_size": 32,
            "text": {"max_tokens": 24},
            "preprocess": {"scale": "standard", "encode": "embedding"},
            **data,
        },
        "model": {"name": "fusion"},
        "optim": {"name": "adam", "learning_rate": 3e-3},
        "train": {"epochs": 12, "steps_per_dispatch": 8, "tensorboard": False},
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("table"))


def test_other_models_name_fusion(path):
    config = {**config_of(path), "model": {"name": "mlp"}}
    with pytest.raises(ConfigError, match=r"'mlp' takes one input; the data have 3.*'fusion'"):
        Experiment.build(config)


def test_improving_is_refused_before_anything_is_trained(path, tmp_path):
    with pytest.raises(UserError, match=r"has several inputs.*`jdlopt tune`"):
        improve(config_of(path), tmp_path / "improved")
    assert not (tmp_path / "improved").exists()


@pytest.mark.slow
def test_fusion_beats_each_of_its_inputs(path):
    best = jdlopt.fit(config_of(path)).metrics["validation/accuracy"]
    assert best > 0.93
    for name in INPUTS:
        others = [
            column for other, columns in INPUTS.items() if other != name for column in columns
        ]
        scale = {} if name == "note" else {"scale": "standard"}
        config = config_of(path, ignore=tuple(others), preprocess=scale)
        alone = jdlopt.fit(config).metrics["validation/accuracy"]
        assert 0.6 < alone < best - 0.08, name


@pytest.mark.slow
def test_every_verb(path, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_of(path)))
    run, study, new = tmp_path / "run", tmp_path / "study", path.parent / "new.csv"
    pd.read_csv(path).drop(columns="size").head(9).to_csv(new, index=False)

    def call(*arguments):
        assert cli.main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    notes = call("data", "describe", f"--config={config}")["notes"]
    assert any("'note' holds texts" in note["what"] for note in notes)
    assert call("data", "check", f"--config={config}")["counts"]["error"] == 0
    record = call("train", f"--config={config}", f"--workdir={run}")
    found = call("eval", f"--workdir={run}", "--split=validation")["metrics"]
    assert found["validation/accuracy"] == pytest.approx(record["metrics"]["validation/accuracy"])
    call("predict", f"--workdir={run}", f"--input={new}", f"--output={tmp_path / 'out.csv'}")
    said = pd.read_csv(tmp_path / "out.csv").prediction
    assert np.mean(said == pd.read_csv(path)["size"].head(9)) > 0.7
    call("report", run)
    assert "By loss" in (run / "report.html").read_text()
    space = tmp_path / "space.py"
    space.write_text(
        "from jdlopt.study.space import log_uniform\n"
        "def get_space():\n    return {'optim.learning_rate': log_uniform(1e-3, 1e-2)}\n"
    )
    call("tune", f"--config={config}", f"--space={space}", f"--workdir={study}", "--trials=2")
