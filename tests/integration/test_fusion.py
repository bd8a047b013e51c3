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
from jdlopt.evidence import techniques
from jdlopt.evidence.sides import side_of
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
    with pytest.raises(ConfigError, match=r"'mlp' takes one input; the data have 3") as raised:
        Experiment.build(config)
    for way in (
        "model.name='fusion'",
        "data.ignore=('photo', 'note')",
        "data.columns={'note': 'category'}",
    ):
        assert way in str(raised.value)
    ignored = config_of(path, ignore=("photo", "note"), preprocess={})
    assert Experiment.build({**ignored, "model": {"name": "mlp"}}).spec.input.shape == (2,)
    said = config_of(path, columns={"note": "category"}, ignore=("photo",), preprocess={})
    assert Experiment.build({**said, "model": {"name": "mlp"}}).spec.input.shape == (3,)


@pytest.mark.slow
def test_techniques_are_offered_for_the_inputs_that_they_fit(path):
    side = side_of(config_of(path))
    facts = techniques.facts_of(side.config, side.dataset)
    found = techniques.applicable(side.config, facts)
    names = {one.name for one in found}
    assert {"rotate", "jitter", "token_dropout", "wider", "deeper", "clip_outliers"} <= names
    for one in found:
        for change in techniques.change(one.name, side.config, facts):
            assert side_of(side.raw, change, like=side).config != side.config, one.name
    for name, reason in {
        "recurrent": r"takes one input; there are 3: note, photo, table\.",
        "mixup": "can't mix all 3 inputs alike",
        "log_scale": "would change .*photo.* too",
        "gain": "does not fit",
    }.items():
        with pytest.raises(UserError, match=reason):
            techniques.change(name, side.config, facts)


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
    picture = tmp_path / "show.png"
    assert len(call("data", "show", f"--config={config}", f"--output={picture}")["inputs"]) == 3
    found = call("diagnose", f"--workdir={run}")["findings"]
    assert "input_scale" not in {one["name"] for one in found}
    once = ("--seeds=3", "--workers=1")
    arms = call("ablate", f"--config={config}", "--techniques=rotate,wider",
                f"--workdir={tmp_path / 'ablated'}", *once)["arms"]  # fmt: skip
    assert {"baseline", "+rotate", "+wider"} <= set(arms)
    improved = call("improve", f"--config={config}", f"--workdir={tmp_path / 'improved'}",
                    "--budget=20s", "--techniques=learning_rate_up", "--workers=1")  # fmt: skip
    assert improved["status"] == "done"
    call("tune", f"--config={config}", f"--space={space}", f"--workdir={study}", "--trials=2")
