"""Classifiers of thousands of classes: nothing that is kept grows with classes times examples."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import jdlopt
from jdlopt.cli import main
from jdlopt.data import open_dataset
from jdlopt.metrics import all_metrics
from jdlopt.report import write_report
from jdlopt.train import predict, serve

CLASSES = 1200


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("many")
    rows = np.arange(2 * CLASSES)
    x = np.stack([np.cos(rows), np.sin(rows)], axis=1).astype(np.float32)
    few = {f"x_{split}": x[:90] for split in ("validation", "test")}
    few |= {f"y_{split}": rows[:90] for split in ("validation", "test")}
    np.savez(place / "d.npz", x_train=x, y_train=rows % CLASSES, **few)
    config = {
        "data": {"source": str(place / "d.npz"), "task": "classification", "batch_size": 64},
        "model": {"name": "linear"},
        "train": {"steps": 4, "tensorboard": False},
        "mesh": {"data": 1},
    }
    jdlopt.fit(config, place / "run")
    np.savez(place / "new.npz", x=x[:7])
    return place


def test_predictions_have_the_likeliest_and_say_so(run, capsys):
    made = jdlopt.open_run(run / "run").predict(run / "new.npz")
    every = jdlopt.open_run(run / "run").predict(run / "new.npz", all_classes=True)
    assert made.probabilities is None and made.likeliest is not None
    assert every.probabilities.shape == (7, CLASSES)
    order = np.argsort(-every.probabilities, axis=1, kind="stable")[:, : serve.TOP]
    np.testing.assert_array_equal(made.likeliest.classes, order)
    assert made.labels == every.labels and (made.values == every.values).all()
    words = ["predict", f"--workdir={run / 'run'}", f"--input={run / 'new.npz'}"]
    assert main(words) == 0
    captured = capsys.readouterr()
    header = captured.out.splitlines()[0].split(",")
    assert header[:3] == ["row", "prediction", "probability"] and len(header) == 1 + 2 * serve.TOP
    assert "all but the 5 likeliest of 1,200 classes" in captured.err
    assert main([*words, f"--output={run / 'p.npz'}"]) == 0
    with np.load(run / "p.npz") as saved:
        assert saved["likeliest"].shape == saved["probabilities_of_likeliest"].shape == (7, 5)
        assert saved["class_names"].shape == (CLASSES,)


def test_a_result_and_a_report_list_no_thousands(run):
    record = json.loads((run / "run" / "result.json").read_text())
    assert not any("per_class" in name or "matrix" in name for name in record["metrics"])
    assert "f1_macro" in all_metrics("classification", CLASSES)
    text = write_report(run / "run").read_text("utf-8")
    assert "of 1,200 classes with the lowest F1" in text and "Most frequent confusions" in text


def test_batches_are_smaller_where_there_are_more_classes():
    spec = open_dataset({"source": "iris"}).spec
    inputs = np.zeros((9, 4), np.float32)
    assert predict.chunk_size(inputs, spec) == predict.BATCH_SIZE
    many = dataclasses.replace(spec, class_names=tuple(map(str, range(100_000))))
    assert predict.chunk_size(inputs, many) * 100_000 <= predict.LARGEST
