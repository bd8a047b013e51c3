"""Tables whose splits are files of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jdlopt.data import open_dataset
from jdlopt.data.check import check_source
from jdlopt.data.given import open_given
from jdlopt.data.origin import origins
from jdlopt.errors import DataError


def animals(size, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "code": [f"{one:03}" for one in rng.integers(0, 5, size)],
            "legs": rng.integers(0, 9, size),
            "kind": np.array(["cat", "dog"])[np.arange(size) % 2],
        }
    )


@pytest.fixture
def place(tmp_path):
    animals(60).assign(code=lambda one: one.code.where(one.index % 3 == 0, "A1")).to_csv(
        tmp_path / "train.csv", index=False
    )
    return tmp_path


def section(place, **more):
    return {"source": str(place / "train.csv"), "target": "kind", **more}


def test_columns_are_found_by_name_and_coded_as_the_training_table_says(place):
    # all codes are digits here, and would be read as numbers by themselves
    test = animals(20, 1)[["kind", "legs", "code"]].assign(more=1.5)
    test.loc[3, "code"] = "777"
    test.to_csv(place / "later.csv", index=False)
    dataset = open_dataset(section(place, test_source=str(place / "later.csv")))
    assert dataset.sizes == {"train": 54, "validation": 6, "test": 20}
    assert dataset.spec.input.feature_names == ("code", "legs")
    inputs, targets = dataset.read("test")
    known = ("", *dataset.spec.input.categories["code"])
    expected = test["code"].where(test["code"] != "777", "")
    assert [known[int(code)] for code in inputs[:, 0]] == expected.tolist()
    np.testing.assert_array_equal(inputs[:, 1], test["legs"])
    assert targets.tolist() == (np.arange(20) % 2).tolist()
    found = origins(dataset)
    assert found["test"]["file"].tolist() == ["later.csv"] * 20
    assert found["test"]["row"].tolist() == list(range(20))
    assert set(found["train"]["file"]) == {"train.csv"}
    said = {note.what: note for note in dataset.notes}
    assert said["categories that no training row has"].count >= 1
    assert "in test" in " ".join(said["categories that no training row has"].places)
    assert said["columns of later.csv that the training table does not have"].count == 1


def test_a_file_for_validation_and_one_for_test(place):
    for name, size in (("v.csv", 10), ("t.csv", 12)):
        animals(size, size).to_csv(place / name, index=False)
    sources = {"validation_source": str(place / "v.csv"), "test_source": str(place / "t.csv")}
    dataset = open_dataset(section(place, **sources))
    assert dataset.sizes == {"train": 60, "validation": 10, "test": 12}
    with pytest.raises(DataError, match=r"data\.folds: .* validation split of its own"):
        open_dataset(section(place, **sources, folds=3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.drop(columns="kind"), r"the test table has no target 'kind'\..*predict"),
        (lambda one: one.drop(columns="legs"), r"lacks 1 of the 2 features of train.csv: 'legs'"),
        (lambda one: one.assign(legs="many"), r"'legs' has text in 9 rows, .* row 1 of test\.csv"),
        (
            lambda one: one.assign(kind="emu"),
            r"test\.csv.*row 1 has class 'emu', which no training",
        ),
        (lambda one: one.assign(kind=None), r"test\.csv.*has 9 missing values"),
        (lambda one: one[:0], r"test\.csv: is empty"),
    ],
)
def test_what_does_not_fit_the_training_table_is_named(place, change, said):
    change(animals(9)).to_csv(place / "test.csv", index=False)
    with pytest.raises(DataError, match=said):
        open_dataset(section(place, test_source=str(place / "test.csv")))


def test_damaged_rows_of_the_file_are_left_out_and_counted(place):
    animals(9).assign(legs=lambda one: one.legs.astype(str).where(one.index != 4, "many")).to_csv(
        place / "test.csv", index=False
    )
    dataset = open_dataset(section(place, test_source=str(place / "test.csv"), on_bad="skip"))
    assert dataset.sizes["test"] == 8
    assert 4 not in origins(dataset)["test"]["row"]


def test_a_folder_of_tables_that_are_called_by_the_names_of_splits(place):
    animals(10).to_csv(place / "test.csv", index=False)
    animals(10).to_csv(place / "sample_submission.csv", index=False)
    dataset = open_dataset({"source": str(place), "target": "kind"})
    assert dataset.sizes == {"train": 54, "validation": 6, "test": 10}
    assert [note.places for note in dataset.notes if note.kind == "left out"] == [
        ("sample_submission.csv",)
    ]
    with pytest.raises(DataError, match=r"has a test table of its own, test\.csv"):
        open_dataset(
            {"source": str(place), "target": "kind", "test_source": str(place / "train.csv")}
        )
    animals(10).to_csv(place / "testing.csv", index=False)
    with pytest.raises(DataError, match="several tables for the split 'test'"):
        open_dataset({"source": str(place), "target": "kind"})


def test_parts_of_splits_are_not_read_as_one_table(tmp_path):
    for part in range(2):
        animals(30, part).to_parquet(tmp_path / f"train-0000{part}-of-00002.parquet")
    animals(10, 3).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    dataset = open_dataset({"source": str(tmp_path), "target": "kind"})
    assert dataset.sizes == {"train": 54, "validation": 6, "test": 10}


def test_data_frames_by_split():
    frames = {"train": animals(60), "test": animals(15, 1)}
    dataset = open_given({"source": "", "target": "kind"}, frames)
    assert dataset.sizes == {"train": 54, "validation": 6, "test": 15}
    with pytest.raises(DataError, match="given by split, 'train' among them; found train, tset"):
        open_given({"source": "", "target": "kind"}, {"tset": animals(9), "train": animals(9)})


def test_large_whole_numbers_keep_their_digits_beside_a_table_with_gaps(place):
    ids = 2**60 + np.arange(60)
    animals(60).assign(stamp=ids).to_csv(place / "train.csv", index=False)
    test = animals(9).assign(stamp=pd.array([*range(2**60, 2**60 + 8), None], dtype="Int64"))
    test.to_parquet(place / "test.parquet")
    fields = section(
        place, test_source=str(place / "test.parquet"), preprocess={"missing": "median"}
    )
    dataset = open_dataset(fields)
    column = dataset.spec.input.feature_names.index("stamp")
    values = dataset.read("test").inputs[:, column]
    assert len(set(values[:8].tolist())) == 8 and np.isnan(values[8])


def test_the_check_finds_training_rows_in_the_test_file(place):
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame({"a": rng.normal(size=80), "b": rng.normal(size=80)})
    numbers["y"] = (numbers.a > 0).astype(int)
    numbers[:60].to_csv(place / "train.csv", index=False)
    pd.concat([numbers[60:], numbers[:5]]).to_csv(place / "test.csv", index=False)
    check = check_source(
        {"source": str(place / "train.csv"), "target": "y", "test_source": str(place / "test.csv")}
    )
    assert "near_duplicates" in {finding.kind for finding in check.findings}


def test_the_check_reads_the_test_file_cell_by_cell(place):
    test = animals(9, 1).astype(object)
    test.loc[2, "legs"], test.loc[4, "legs"], test.loc[6, "kind"] = "many", np.inf, None
    test.to_csv(place / "test.csv", index=False)
    with (place / "test.csv").open("a") as file:
        file.write("001,3\n")
    for source in (
        section(place, test_source=str(place / "test.csv")),
        {**section(place), "source": str(place)},
    ):
        check = check_source(source)
        assert check.sizes == {"rows": 60, "columns": 3, "rows of test.csv": 10}
        found = {one.kind: one for one in check.findings if "test.csv" in one.where}
        assert {kind: one.where for kind, one in found.items()} == {
            "text_in_numbers": "legs, row 3 of test.csv",
            "infinite": "legs, row 5 of test.csv",
            "missing_target": "kind, row 7 of test.csv",
            "wrong_size": "too few values, row 10 of test.csv",
        }
        assert all(one.text.startswith("test.csv: ") for one in found.values())


def test_only_a_table_has_tables_of_its_own_for_splits(place):
    np.savez(place / "a.npz", x=np.zeros((9, 2)), y=np.arange(9) % 2)
    with pytest.raises(DataError, match=r"data\.test_source: names a table beside a table"):
        open_dataset({"source": str(place / "a.npz"), "test_source": str(place / "train.csv")})
    with pytest.raises(DataError, match=r"data\.test_source: there is no file.*Did you mean"):
        open_dataset(section(place, test_source=str(place / "trian.csv")))
    with pytest.raises(DataError, match=r"is the table that is trained on"):
        open_dataset(section(place, test_source=str(place / "train.csv")))
