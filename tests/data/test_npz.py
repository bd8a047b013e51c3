from __future__ import annotations

import numpy as np
import pytest

from jdlopt.data import npz as npz_room
from jdlopt.data import open_dataset
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5, 2))
Y = np.arange(40) % 2


def save(folder, **arrays):
    path = folder / "signals.npz"
    np.savez(path, **arrays)
    return {"source": str(path)}


@pytest.mark.parametrize("keys", [("x", "y"), ("inputs", "targets"), ("X", "y")])
def test_inputs_and_targets(tmp_path, keys):
    dataset = open_dataset(save(tmp_path, **dict(zip(keys, (X, Y)))))
    assert dataset.spec.input.shape == (5, 2)
    assert dataset.spec.class_names == ("0", "1")
    assert dataset.sizes == {"train": 28, "validation": 4, "test": 8}
    np.testing.assert_array_equal(
        dataset.read("test").inputs, X[dataset.parts["test"][1]].astype(np.float32)
    )


def test_splits_of_its_own_and_test_is_not_read_early(tmp_path, monkeypatch):
    fields = save(
        tmp_path, x_train=X[:20], y_train=Y[:20], x_val=X[20:30], y_val=Y[20:30],
        x_test=X[30:], y_test=Y[30:],
    )  # fmt: skip
    read, original = [], npz_room.read_array
    monkeypatch.setattr(
        npz_room, "read_array", lambda path, key: read.append(key) or original(path, key)
    )
    dataset = open_dataset(fields)
    assert dataset.sizes == {"train": 20, "validation": 10, "test": 10}
    dataset.read("train")
    dataset.read("validation")
    assert not any("test" in key for key in read)
    np.testing.assert_array_equal(dataset.read("test").targets, Y[30:])
    assert "x_test" in read


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (np.zeros((40, 6, 7), np.uint8), (6, 7, 1), "uint8"),
        (np.zeros((40, 6, 7), np.int64), (6, 7), "float32"),
        (np.zeros((40, 6, 7, 3), np.uint8), (6, 7, 3), "uint8"),
        (np.zeros(40), (1,), "float32"),
        (np.zeros((40, 3), bool), (3,), "float32"),
    ],
)
def test_input_shapes_and_types(tmp_path, x, shape, dtype):
    dataset = open_dataset(save(tmp_path, x=x, y=Y))
    assert (dataset.spec.input.shape, dataset.spec.input.dtype) == (shape, dtype)
    inputs = dataset.read("train").inputs
    assert (inputs.shape[1:], str(inputs.dtype)) == (shape, dtype)


def test_text_classes_and_regression(tmp_path):
    names = np.array(["no", "yes"])[Y]
    assert open_dataset(save(tmp_path, x=X, y=names)).spec.class_names == ("no", "yes")
    assert open_dataset(save(tmp_path, x=X, y=RNG.normal(size=(40, 1)))).spec.task == "regression"


WITH_NAN = X.copy()
WITH_NAN[7, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "b": Y}, "expected arrays 'x' and 'y'.*found a, b"),
        ({"x": X, "y": Y[:-1]}, "40 rows and 'y' has 39"),
        ({"x": WITH_NAN, "y": Y}, "example 7 .*NaN"),
        ({"x": X, "y": np.where(np.arange(40) == 3, np.nan, 0.5)}, "missing.*row 4"),
        ({"x": X, "y": np.zeros(40)}, "one class only"),
        ({"x": X, "y": np.zeros((40, 2, 2))}, "one target an example or a row of them"),
        ({"x": X.astype(str), "y": Y}, "expected numbers"),
        ({"x": X, "y": np.array([{}] * 40, dtype=object)}, "holds? Python objects"),
        ({"x": 3.0, "y": Y}, "must be arrays"),
        ({"x": X[:0], "y": Y[:0]}, "is empty"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :4], "y_test": Y}, "differ in shape"),
    ],
)
def test_wrong_archives(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        open_dataset(save(tmp_path, **arrays))


def test_a_test_class_unknown_in_training(tmp_path):
    dataset = open_dataset(save(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y + 1))
    with pytest.raises(DataError, match="which no training example has"):
        dataset.read("test")


def test_not_an_archive(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="can't be read as an NPZ file"):
        open_dataset({"source": str(path)})


def test_columns_can_not_be_named(tmp_path):
    fields = save(tmp_path, x=X, y=Y)
    with pytest.raises(DataError, match=r"data.target: names columns"):
        open_dataset(fields | {"target": "y"})
    with pytest.raises(DataError, match=r"data.image_size: .*not image files"):
        open_dataset(fields | {"image_size": (9, 9)})


WITH_BOTH = WITH_NAN.copy()
WITH_BOTH[11, 2, 1] = np.inf


def test_infinite_inputs_are_skipped_when_asked(tmp_path):
    whole = np.where(np.isnan(WITH_BOTH), 0.0, WITH_BOTH)
    fields = save(tmp_path, x=whole, y=Y)
    with pytest.raises(DataError, match=r"example 11 .*infinity"):
        open_dataset(fields)
    dataset = open_dataset(fields | {"on_bad": "skip"})
    strict = open_dataset(save(tmp_path, x=X, y=Y))
    for split in dataset.sizes:
        expected = strict.parts[split][1]
        kept = expected[expected != 11]
        np.testing.assert_array_equal(dataset.read(split).inputs, whole[kept].astype(np.float32))
        assert dataset.sizes[split] == len(kept)
    assert dataset.skipped == {"infinite value": 1}


def test_infinite_test_inputs_are_skipped_when_they_are_read(tmp_path):
    fields = save(tmp_path, x_train=X, y_train=Y, x_test=WITH_BOTH[8:], y_test=Y[8:])
    dataset = open_dataset(fields | {"on_bad": "skip"})
    assert dataset.skipped == {} and dataset.sizes["test"] == 32
    np.testing.assert_array_equal(dataset.targets("test"), np.delete(Y[8:], 3))
    assert dataset.read("test").inputs.shape == (31, 5, 2)
    assert dataset.sizes["test"] == len(dataset.records("test")) == 31
    assert dataset.skipped == {"infinite value": 1}
    assert "test, example 3 (infinite value)" in str(dataset.skips)


def test_missing_inputs_pass_where_preprocessing_fills_them(tmp_path):
    fields = save(tmp_path, x=WITH_NAN, y=Y) | {"preprocess": {"missing": "median"}}
    dataset = open_dataset(fields)
    assert sum(np.isnan(dataset.read(split).inputs).sum() for split in dataset.sizes) == 1
    with pytest.raises(DataError, match=r"example 11 .*infinity"):
        open_dataset(save(tmp_path, x=WITH_BOTH, y=Y) | {"preprocess": {"missing": "median"}})
    lenient = open_dataset(save(tmp_path, x=WITH_BOTH, y=Y) | {"on_bad": "skip"})
    split = next(name for name, (_, rows) in lenient.parts.items() if 7 in rows)
    with pytest.raises(DataError, match="NaN"):
        lenient.read(split)


@pytest.mark.parametrize("key", ["group", "time", "text_column"])
def test_no_column_can_be_named(tmp_path, key):
    with pytest.raises(DataError, match=rf"data.{key}: names columns"):
        open_dataset(save(tmp_path, x=X, y=Y) | {key: "y"})
