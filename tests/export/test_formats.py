"""Runs written as files: by the verb, of one run and of several, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from families import TABLE, table

import jdlopt
from jdlopt.cli import main
from jdlopt.cli.verbs import ExportFlags
from jdlopt.config.options import options_of
from jdlopt.errors import UserError, WorkdirError
from jdlopt.export import extras, onnx
from jdlopt.export.formats import FORMATS, export_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of other seeds on one table."""
    place = tmp_path_factory.mktemp("runs")
    TABLE.to_csv(place / "table.csv", index=False)
    for seed in (0, 1):
        jdlopt.fit(
            {
                "seed": seed,
                "data": {
                    "source": str(place / "table.csv"),
                    "batch_size": 8,
                    **table(scale="standard", missing="mean"),
                },
                "model": {"name": "mlp", "features": (8,)},
                "optim": {"name": "adam", "learning_rate": 0.01},
                "train": {"steps": 4, "loggers": ()},
                "mesh": {"data": 1},
            },
            place / f"run{seed}",
        )
    return place


def test_the_verb_writes_a_file_that_predicts_as_the_run_does(runs, tmp_path, capsys):
    words = ["export", str(runs / "run0"), "--format=onnx", f"--out={tmp_path}", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["relative_error"] <= 1e-5 and record["same_classes"] == 1.0
    columns = {one["name"]: one for one in record["inputs"][0]["columns"]}
    assert columns["shape"]["categories"] == ["x", "y"] and record["classes"] == ["c0", "c1", "c2"]
    rows = np.zeros((len(TABLE), len(columns)), np.float32)
    for place, (name, column) in enumerate(columns.items()):
        known = column.get("categories")
        rows[:, place] = TABLE[name].map(known.index) + 1 if known else TABLE[name]
    said = onnx.load(tmp_path / "model.onnx")(rows)["probabilities"]
    expected = jdlopt.open_run(runs / "run0").predict(TABLE.drop(columns="y")).probabilities
    np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-6)


def test_several_runs_are_one_file(runs):
    place = [runs / "run0", runs / "run1"]
    record = export_run(place, "stablehlo")
    assert record["file"] == str(place[0] / "export" / "model.stablehlo")
    assert record["relative_error"] == 0.0 and len(record["steps"]) == 2


def test_weights_alone_are_a_folder_of_one_run(runs, tmp_path, capsys):
    words = ["export", str(runs / "run0"), "--format=safetensors", f"--out={tmp_path}", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["names"] == "jdlopt"
    assert {one.name for one in (tmp_path / "safetensors").iterdir()} == {
        "config.json", "model.safetensors"
    }  # fmt: skip
    with pytest.raises(UserError, match="--ensemble: safetensors has the weights of one run"):
        export_run([runs / "run0", runs / "run1"], "safetensors", tmp_path)


def test_what_can_not_be_written_is_one_message(runs, tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"--format: 'onx' is unknown. Did you mean 'onnx'\? Known"):
        export_run([runs / "run0"], "onx")
    assert main(["export", str(tmp_path), "--format=onnx"]) == 2
    assert "holds no run" in capsys.readouterr().err
    record = runs / "run1" / "result.json"
    result = json.loads(record.read_text())
    record.write_text(json.dumps({**result, "status": "interrupted"}))
    try:
        with pytest.raises(WorkdirError, match=r"its run is interrupted.*`jdlopt train"):
            export_run([runs / "run1"], "onnx")
    finally:
        record.write_text(json.dumps(result))
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs jax2onnx and onnx, .*pip install 'jdlopt\[export\]'"
    ):
        export_run([runs / "run0"], "onnx", tmp_path)


def test_the_verbs_help_names_every_format():
    (flag,) = [one.flag for one in options_of(ExportFlags) if one.name == "format"]
    assert all(name in flag.help for name in FORMATS)
