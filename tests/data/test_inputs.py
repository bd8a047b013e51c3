from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jdlopt.data import open_dataset, read_inputs
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import DataError

TABLE = InputSpec((2,), "float32", feature_names=("a", "b"))
SIGNAL = InputSpec((3, 1), "float32")
PICTURE = InputSpec((4, 5, 3), "uint8")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_are_found_by_name(tmp_path, suffix):
    frame = pd.DataFrame({"b": [1, 2], "text": ["x", "y"], "a": [0.5, 0.25]})
    path = tmp_path / f"new{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    inputs, ids, notes, _ = read_inputs(path, TABLE)
    assert notes == ()
    np.testing.assert_array_equal(inputs, np.float32([[0.5, 1], [0.25, 2]]))
    assert inputs.dtype == np.float32
    assert ids == ["0", "1"]


def test_columns_without_names_fill_the_input_in_order(tmp_path):
    path = tmp_path / "signals.csv"
    path.write_text("t0,t1,t2\n1,2,3\n4,5,6\n")
    inputs = read_inputs(path, SIGNAL).inputs
    np.testing.assert_array_equal(inputs[..., 0], [[1, 2, 3], [4, 5, 6]])


def test_npz(tmp_path):
    path = tmp_path / "new.npz"
    for key in ("x", "inputs", "anything"):
        np.savez(path, **{key: np.ones((6, 3, 1))})
        assert read_inputs(path, SIGNAL).inputs.shape == (6, 3, 1)
    np.savez(path, x=np.full((6, 4, 5, 3), 7))
    assert read_inputs(path, PICTURE).inputs.dtype == np.uint8


def test_images_with_and_without_subfolders(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("z.png", "deep/a.png"):
        Image.new("RGB", (10, 8), "red").save(tmp_path / name)
    inputs, ids, *_ = read_inputs(tmp_path, PICTURE)
    assert inputs.shape == (2, 4, 5, 3)
    assert ids == ["deep/a.png", "z.png"]
    assert read_inputs(tmp_path / "z.png", PICTURE).ids == ["z.png"]


def test_the_training_data_reads_back_alike(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(30, 3)), columns=["a", "b", "c"])
    frame["y"] = np.arange(30) % 3
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False)
    dataset = open_dataset({"source": str(path), "target": "y", "ignore": ("b",)})
    inputs = read_inputs(path, dataset.spec.input).inputs
    np.testing.assert_array_equal(inputs[dataset.parts["test"][1]], dataset.read("test").inputs)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("hashed", [False, True])
def test_categories_and_missing_values_read_back_alike(tmp_path, suffix, hashed):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(60) < 0.2, np.nan, rng.normal(size=60)),
            "code": rng.choice(["1", "02", "x", "y", "z", None], 60),
            "colour": rng.choice(["red", "None of it", " blue"], 60),
            "y": np.arange(60) % 3,
        }
    )
    path = tmp_path / f"data{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    preprocess = {"missing": "median", "encode": "hashed" if hashed else "one_hot"}
    dataset = open_dataset({"source": str(path), "target": "y", "preprocess": preprocess})
    assert dataset.spec.input.categories["code"] == ("02", "1", "x", "y", "z")
    spec = DataSpec.from_dict(json.loads(json.dumps(dataset.spec.to_dict()))).input
    inputs = read_inputs(path, spec).inputs
    assert np.isnan(inputs).any(axis=0).tolist() == [True, True, False]
    for split in dataset.sizes:
        rows = dataset.parts[split][1]
        np.testing.assert_array_equal(inputs[rows], dataset.read(split).inputs)
    with pytest.raises(DataError, match="missing values"):
        read_inputs(path, dataclasses.replace(spec, missing="refuse"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_categories_that_look_like_numbers_are_those_of_training(tmp_path, suffix):
    frame = pd.DataFrame({"a": [0.5, 1, 2], "b": [1, 2, 3]})
    path = tmp_path / f"new{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    inputs = read_inputs(path, dataclasses.replace(TABLE, categories={"b": ("2", "3", "x")})).inputs
    np.testing.assert_array_equal(inputs, np.float32([[0.5, 0], [1, 1], [2, 2]]))


def test_texts_read_back_alike(tmp_path):
    texts = ["good film", "bad film", "NA", "", "a, quoted text"] * 8
    frame = pd.DataFrame({"words": texts, "y": np.arange(40) // 5 % 2})
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False)
    fields = {"source": str(path), "target": "y", "text_column": "words"}
    dataset = open_dataset(fields | {"text": {"max_tokens": 8, "vocab_size": 60}})
    spec = DataSpec.from_dict(json.loads(json.dumps(dataset.spec.to_dict()))).input
    inputs, ids, *_ = read_inputs(path, spec)
    assert inputs.shape == (40, 8) and inputs.dtype == np.int32 and ids[-1] == "39"
    for split in dataset.sizes:
        rows = dataset.parts[split][1]
        np.testing.assert_array_equal(inputs[rows], dataset.read(split).inputs)
    lines = tmp_path / "new.txt"
    lines.write_text("\n".join(texts[:5]) + "\n", encoding="utf-8")
    np.testing.assert_array_equal(read_inputs(lines, spec).inputs, inputs[:5])
    frame.rename(columns={"words": "word"}).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"no column 'words', the texts'. Did you mean 'word'"):
        read_inputs(path, spec)
    for name, content in {"empty.txt": b"", "latin.txt": "größe".encode("latin-1")}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"holds no text|can't be read as text in UTF-8"):
            read_inputs(tmp_path / name, spec)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.npz").touch()
    with pytest.raises(DataError, match="holds no text"):
        read_inputs(tmp_path / "empty", spec)
    with pytest.raises(DataError, match="the model was trained on texts"):
        read_inputs(tmp_path / "a.npz", spec)


def csv(text):
    return lambda path: path.write_text(text)


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("name", "make", "spec", "message"),
    [
        ("gone.csv", lambda path: None, TABLE, "there is no such file"),
        ("a.csv", csv("a,c\n1,2\n"), TABLE, "lacks 1 of the 2 columns.*: b.*Found: a, c"),
        ("a.csv", csv("a,b\n"), TABLE, "is empty"),
        ("a.csv", csv("a,b\n1,x\n"), TABLE, "column 'b' has text .*'x' in row 1"),
        ("a.csv", csv("a,b\n1,\n"), TABLE, "column 'b' has missing values"),
        ("a.csv", csv("a,b\n1,2\n"), SIGNAL, "2 columns; the model was trained on 3"),
        ("a.txt", csv("hello"), TABLE, "expected a folder of images, an image, or a file"),
        ("a.npz", npz(u=np.ones(3), v=np.ones(3)), SIGNAL, "or one array only; found u, v"),
        ("a.npz", npz(x=np.ones((3, 4, 1))), SIGNAL, r"shape \(4, 1\); the model was trained on"),
        ("a.npz", npz(x=np.ones((0, 3, 1))), SIGNAL, "is empty"),
        ("a.npz", npz(x=np.full((2, 3, 1), np.nan)), SIGNAL, "holds NaN"),
        ("a.npz", npz(x=np.full((2, 4, 5, 3), 0.5)), PICTURE, "whole numbers from 0 to 255"),
        ("folder", lambda path: path.mkdir(), PICTURE, "holds no image"),
        ("folder", lambda path: path.mkdir(), TABLE, "not on images"),
        ("a.png", csv("no image"), PICTURE, "can't be read as an image"),
    ],
)
def test_wrong_inputs(tmp_path, name, make, spec, message):
    make(tmp_path / name)
    with pytest.raises(DataError, match=f"(?s){message}"):
        read_inputs(tmp_path / name, spec)
