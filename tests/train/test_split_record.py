"""What a run writes down of its splits."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import jdlopt
from jdlopt.cli import main
from jdlopt.data import open_dataset
from jdlopt.errors import WorkdirError
from jdlopt.train import split_record

FRAME = pd.DataFrame({"id": [f"p{row}" for row in range(90)], "a": np.arange(90.0)})
FRAME["y"] = np.where(FRAME.a % 3 == 0, "x", "z")


def config(source, **data):
    return {
        "data": {"source": source, "target": "y", "batch_size": 16, **data},
        "model": {"name": "linear"},
        "train": {"epochs": 1, "tensorboard": False},
        "mesh": {"data": 1},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    FRAME.to_csv(place / "t.csv", index=False)
    jdlopt.fit(config(str(place / "t.csv"), split_by="id"), place / "run")
    return place


def test_a_run_tells_the_rows_of_each_split(run, capsys):
    splits = jdlopt.open_run(run / "run").splits
    dataset = open_dataset({"source": str(run / "t.csv"), "target": "y", "split_by": "id"})
    assert list(splits) == ["train", "validation", "test"]
    for split, one in splits.items():
        rows = FRAME.iloc[one["row"]]
        np.testing.assert_array_equal(dataset.read(split).inputs[:, 0], rows["a"].astype("f4"))
        assert one["key"].tolist() == rows["id"].tolist()
    text = (run / "run" / "splits.csv").read_text().splitlines()
    assert text[0] == "split,row,key" and len(text) == 91
    assert main(["data", "describe", str(run / "run"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["splits_file"] == str(run / "run" / "splits.csv")


def test_the_rows_that_were_trained_on_stay_known_when_the_table_grows(run):
    before = (run / "run" / "splits.csv").read_bytes()
    pd.concat([FRAME, FRAME]).to_csv(run / "t.csv", index=False)
    with pytest.raises(WorkdirError, match="began with other data"):
        jdlopt.fit(config(str(run / "t.csv"), split_by="id"), run / "run")
    assert (run / "run" / "splits.csv").read_bytes() == before
    FRAME.to_csv(run / "t.csv", index=False)


def test_a_run_in_memory_tells_them_too():
    made = jdlopt.fit(config(""), data=FRAME.drop(columns="id"))
    assert sorted(row for one in made.splits.values() for row in one["row"]) == list(range(90))


def test_a_long_record_is_compressed_and_a_very_long_one_left_out(tmp_path, monkeypatch):
    dataset = open_dataset({"source": "iris"})
    monkeypatch.setattr(split_record, "MOST_PLAIN", 100)
    split_record.save(tmp_path, dataset)
    path = split_record.find(tmp_path)
    assert path is not None and path.name == "splits.csv.gz"
    pd.testing.assert_frame_equal(
        split_record.read(path)["test"], split_record.of_dataset(dataset)["test"]
    )
    path.write_bytes(b"damaged")
    with pytest.raises(WorkdirError, match="is damaged"):
        split_record.read(path)
    path.unlink()
    monkeypatch.setattr(split_record, "MOST", 100)
    split_record.save(tmp_path, dataset)
    assert split_record.find(tmp_path) is None
