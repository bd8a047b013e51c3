from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jdlopt.data import open_dataset
from jdlopt.errors import DataError


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "width": rng.normal(size=60),
            "count": rng.integers(0, 9, size=60),
            "open": rng.integers(0, 2, size=60).astype(bool),
            "species": np.array(["cat", "dog", "emu"])[np.arange(60) % 3],
        }
    )


def save(frame, folder, suffix):
    path = folder / f"animals{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_becomes_features_and_classes(frame, tmp_path, suffix):
    path = save(frame, tmp_path, suffix)
    dataset = open_dataset({"source": str(path), "target": "species", "ignore": ("open",)})
    assert dataset.name == "animals"
    assert dataset.task == "classification"
    assert dataset.class_names == ("cat", "dog", "emu")
    assert dataset.feature_names == ("width", "count")
    assert dataset.input_shape == (2,)
    assert dataset.sizes == {"train": 43, "validation": 5, "test": 12}
    for split in dataset.sizes:
        inputs, targets = dataset.read(split)
        assert (inputs.dtype, targets.dtype) == (np.float32, np.int32)
        rows = dataset.parts[split][1]
        np.testing.assert_array_equal(inputs, frame.loc[rows, ["width", "count"]].astype("float32"))
        names = np.array(dataset.class_names)[targets]
        np.testing.assert_array_equal(names, frame.loc[rows, "species"])
        record = dataset.records(split)[1]
        np.testing.assert_array_equal(record[0], inputs[1])
        assert record[1] == targets[1]
    assert dataset.nbytes("train") == sum(array.nbytes for array in dataset.read("train"))


def test_booleans_are_numbers(frame, tmp_path):
    dataset = open_dataset({"source": str(save(frame, tmp_path, ".csv")), "target": "species"})
    assert set(dataset.read("train").inputs[:, 2]) == {0.0, 1.0}


def test_regression(frame, tmp_path):
    path = save(frame, tmp_path, ".csv")
    fields = {"source": str(path), "target": "width", "ignore": ("species",)}
    dataset = open_dataset(fields)
    assert (dataset.task, dataset.num_classes, dataset.class_names) == ("regression", 0, ())
    assert dataset.read("train").targets.dtype == np.float32


def test_what_test_rows_hold_changes_nothing_before_they_are_read(frame, tmp_path):
    fields = {"source": str(save(frame, tmp_path, ".csv")), "target": "species"}
    before = open_dataset(fields)
    test_rows = before.parts["test"][1]
    frame.loc[test_rows, "width"] = 1e6
    save(frame, tmp_path, ".csv")
    after = open_dataset(fields)
    np.testing.assert_array_equal(after.parts["test"][1], test_rows)
    for split in ("train", "validation"):
        for left, right in zip(before.read(split), after.read(split)):
            np.testing.assert_array_equal(left, right)
    assert (after.read("test").inputs[:, 0] == 1e6).all()


def test_missing_values_can_be_kept_to_be_described(frame, tmp_path):
    frame.loc[3, "width"] = np.nan
    fields = {"source": str(save(frame, tmp_path, ".csv")), "target": "species"}
    dataset = open_dataset(fields, allow_missing=True)
    missing = sum(np.isnan(dataset.read(split).inputs).sum() for split in dataset.sizes)
    assert missing == 1


def open_text(folder, text, **fields):
    path = folder / "data.csv"
    path.write_text(text)
    return open_dataset({"source": str(path), "target": "y", **fields})


GOOD = "a,b,y\n" + "".join(f"{row}.5,{row},{row % 2}\n" for row in range(20))


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", {}, "is empty: expected a header"),
        ("a,b,y\n", {}, "is empty: it has a header but no rows"),
        (GOOD, {"target": None}, "data.target is not set.*Columns: a, b, y"),
        (GOOD.replace("a,b", "label,b"), {"target": "labels"}, "Did you mean 'label'"),
        (GOOD, {"ignore": ("bb",)}, "data.ignore: there is no column 'bb'"),
        (GOOD, {"ignore": ("a", "b")}, "no feature column is left"),
        (GOOD.replace(",", ";"), {}, "separated by ';'"),
        (GOOD.replace("a,b,", "a,a,"), {}, "more than one column is called 'a'"),
        (GOOD.replace("3.5,", "much,"), {}, "column 'a' has text in 2 rows.*'much' in row 4"),
        (GOOD.replace("3.5,3", "3.5,"), {}, r"column 'b' has missing values .*1 rows.*row 4"),
        (GOOD.replace("3.5,3", "inf,1e60"), {}, r"column 'a' holds inf in row 4.*\n.*1e\+60"),
        (GOOD.replace("3.5,3,1", "3.5,3,"), {}, "1 missing values.*row 4"),
        (GOOD.replace("3.5,3,1", "3.5,3,1,9"), {}, "Expected 3 fields in line 5, saw 4"),
        (GOOD.replace("\n", ",7\n").replace("y,7", "y"), {}, "more values than the header"),
        (GOOD.replace(",1\n", ",0\n"), {}, "one class only"),
        (GOOD.replace("3.5,3,1", "3.5,3,2"), {}, r"too few examples of a class.*2 \(1\)"),
        (GOOD.replace("3.5,3,1", "3.5,3,x"), {"task": "regression"}, "row 4 holds 'x'"),
        (GOOD.replace("a,b", ",b"), {}, "'Unnamed: 0' has no name.*saved row index"),
        ("a,y\n1,0\n2,1\n", {"stratify": False}, "validation split"),
    ],
)
def test_wrong_tables(tmp_path, text, fields, message):
    with pytest.raises(DataError, match=f"(?s)data.csv.*{message}"):
        open_text(tmp_path, text, **fields)


def test_all_problems_of_a_table_are_told_at_once(tmp_path):
    with pytest.raises(DataError, match=r"(?s)column 'a' has text.*column 'b' has missing"):
        open_text(tmp_path, GOOD.replace("3.5,3", "x,"))


def test_a_byte_order_mark_and_spaces_are_no_part_of_a_name(tmp_path):
    text = "\ufeff" + GOOD.replace("a,b,y", "a, b, y")
    assert open_text(tmp_path, text).feature_names == ("a", "b")


def test_dates_and_objects_are_refused(frame, tmp_path):
    frame["when"] = pd.Timestamp("2020-01-01")
    frame["many"] = [[1, 2]] * len(frame)
    path = save(frame, tmp_path, ".parquet")
    with pytest.raises(DataError, match=r"(?s)'when' holds dates.*'many' holds ndarray objects"):
        open_dataset({"source": str(path), "target": "species"})
    with pytest.raises(DataError, match=r"'when'.*holds dates"):
        open_dataset({"source": str(path), "target": "when"})


def test_files_that_are_no_tables(tmp_path):
    binary = tmp_path / "data.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(DataError, match="can't be read as CSV in UTF-8"):
        open_dataset({"source": str(binary), "target": "y"})
    fake = tmp_path / "data.parquet"
    fake.write_text(GOOD)
    with pytest.raises(DataError, match="can't be read as Parquet"):
        open_dataset({"source": str(fake), "target": "y"})
