from __future__ import annotations

import json

import numpy as np
import pytest

from jdlopt.cli.data_description import print_description
from jdlopt.data import describe, open_dataset
from jdlopt.data import describe as describe_dataset
from jdlopt.data.given import open_given
from jdlopt.data.pools import ArrayPool

ROWS = "".join(f"{row},{row % 7}.5,{'ab'[row % 2]}\n" for row in range(40))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("p,q,y\n" + ROWS)
    return path


def test_classes_features_and_sizes(path):
    dataset = open_dataset({"source": str(path), "target": "y"})
    described = json.loads(json.dumps(describe(dataset)))
    assert described["input_shape"] == [2]
    train = described["splits"]["train"]
    inputs, targets = dataset.read("train")
    assert train["examples"] == train["examples_described"] == 28
    assert train["classes"]["a"] == {"examples": int((targets == 0).sum()), "share": 0.5}
    feature = train["features"]["q"]
    assert feature["max"] == inputs[:, 1].max()
    assert feature["std"] == pytest.approx(inputs[:, 1].std(dtype=np.float64))
    assert feature["missing"] == 0
    assert described["splits"]["test"] == {"examples": 8, "nbytes": 8 * 12, "read": False}


def test_the_test_split_is_not_read(path, monkeypatch):
    dataset = open_dataset({"source": str(path), "target": "y"})
    read, original = [], ArrayPool.read

    def spy(pool, indices):
        read.extend(indices.tolist())
        return original(pool, indices)

    monkeypatch.setattr(ArrayPool, "read", spy)
    describe(dataset)
    assert not set(read) & set(dataset.parts["test"][1].tolist())
    assert len(read) == 32


def test_missing_values_and_a_target_to_predict(path):
    path.write_text("p,q,y\n" + ROWS.replace("a\n", "0.5\n").replace("b\n", "0.25\n"))
    text = path.read_text().replace("\n3,", "\n,").replace("\n4,", "\n,")
    path.write_text(text)
    fields = {"source": str(path), "target": "y"}
    described = describe(open_dataset(fields, allow_missing=True))
    splits = [described["splits"][name] for name in ("train", "validation")]
    assert sum(split["features"]["p"]["missing"] for split in splits) <= 2
    assert splits[0]["target"]["max"] == 0.5
    assert "classes" not in splits[0]


def test_a_large_split_is_sampled(path, monkeypatch):
    import sys

    module = sys.modules[describe_dataset.__module__]
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    monkeypatch.setattr(module, "SAMPLE", 10)
    described = describe(open_dataset({"source": str(path), "target": "y"}))
    assert described["splits"]["train"]["examples_described"] == 10


def test_of_pairs_the_values_are_counted_that_tell_them_apart(capsys):
    inputs = {"a": np.ones((30, 2), np.float32), "b": np.ones((30, 3), np.float32)}
    dataset = open_given({"source": "made", "task": "pairs"}, (inputs, np.arange(30) // 2))
    described = json.loads(json.dumps(describe(dataset)))
    distinct = len(np.unique(dataset.rows("train") // 2))
    assert described["splits"]["train"]["target"] == {"distinct": distinct}
    assert described["baseline"] is None
    print_description(described)
    shown = " ".join(capsys.readouterr().err.split())
    assert "to tell which belong together" in shown and f"train {distinct}" in shown
    assert "a number to predict" not in shown and "RMSE" not in shown


def test_a_feature_without_any_value(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *("," + line.split(",", 1)[1] for line in lines[1:])]))
    described = describe(open_dataset({"source": str(path), "target": "y"}, allow_missing=True))
    assert described["splits"]["train"]["features"]["p"]["mean"] is None


def test_categories_are_described_by_their_names_and_numbers_as_they_are_written(path):
    path.write_text(
        "kind,seconds,y\n"
        + "".join(f"{'xyx'[row % 3]},{1_700_000_000 + row},{'ab'[row % 2]}\n" for row in range(40))
    )
    described = describe(open_dataset({"source": str(path), "target": "y"}))
    features = described["splits"]["train"]["features"]
    assert list(features["kind"]["most frequent"]) == ["x", "y"]
    assert features["kind"]["categories"] == 2 and features["kind"]["missing"] == 0
    assert sum(features["kind"]["most frequent"].values()) == 28
    assert 1_700_000_000 <= features["seconds"]["min"] < 1_700_000_040
    assert features["seconds"]["std"] > 1
