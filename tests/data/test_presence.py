"""Rows of a mixed table that lack an input: masked, refused or left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from mixed_tables import make_table

from jdlopt.data import open_dataset, read_inputs
from jdlopt.data.named import PRESENT, those_with
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, DataError
from jdlopt.train.components import learnt, recipe_of
from jdlopt.train.schema import resolve_data

ROWS = {"photo": [3, 5], "note": [5, 8], "table": [2, 9]}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = make_table(tmp_path_factory.mktemp("mixed"), 40)
    table = pd.read_csv(made)
    table.loc[ROWS["photo"], "photo"] = None
    table.loc[ROWS["note"], "note"] = None
    table.loc[ROWS["table"], ["age", "colour"]] = None
    table.to_csv(made, index=False)
    return made


def fields_of(path, **keys):
    columns = {"photo": "image", "note": "text"}
    data = {"source": str(path), "target": "size", "columns": columns, "missing_inputs": "mask"}
    return resolve_data({"data": {**data, **keys}})


def test_what_is_missing_is_zeros_and_marked(path):
    fields = fields_of(path, preprocess={"scale": "standard"})
    dataset = open_dataset(fields)
    assert list(dataset.spec.inputs) == ["table", "photo", "note", PRESENT]
    assert DataSpec.from_dict(dataset.spec.to_dict()) == dataset.spec
    assert [note.count for note in dataset.notes if "are masked" in str(note)] == [2, 2, 2]
    for split in ("train", "validation", "test"):
        rows, inputs = dataset.rows(split), dataset.read(split).inputs
        for place, (name, lacking) in enumerate({k: ROWS[k] for k in dataset.spec.inputs
                                                 if k != PRESENT}.items()):  # fmt: skip
            there = ~np.isin(rows, lacking)
            np.testing.assert_array_equal(inputs[PRESENT][:, place], there)
            assert not inputs[name][~there].any() and len(those_with(inputs, name)) == there.sum()
    read = read_inputs(path, dataset.spec.inputs)
    rows = dataset.rows("train")
    for name, values in dataset.read("train").inputs.items():
        np.testing.assert_array_equal(read.inputs[name][rows], values)
    # the numbers of rows that have none say nothing of the others
    found = learnt(recipe_of(fields, dataset.spec), dataset, {})
    ages = pd.read_csv(path).age[rows].dropna()
    np.testing.assert_allclose(found["table"]["scale"]["shift"][0], ages.mean(), rtol=1e-5)
    arrays = {name: one for name, one in read.inputs.items() if name != PRESENT}
    np.savez(path.parent / "arrays.npz", **arrays)
    assert read_inputs(path.parent / "arrays.npz", dataset.spec.inputs).inputs[PRESENT].all()


def test_what_is_no_missing_input_is_refused(path, tmp_path):
    with pytest.raises(DataError, match="'photo' names no image in 2 rows"):
        open_dataset(fields_of(path, missing_inputs="refuse", ignore=("age", "colour", "note"),
                               columns={"photo": "image"}))  # fmt: skip
    with pytest.raises(DataError, match="has one input alone"):
        open_dataset(fields_of(path, ignore=("age", "colour", "note"), columns={"photo": "image"}))
    with pytest.raises(ConfigError, match=r"missing_inputs: 'masc' is unknown.*mask"):
        fields_of(path, missing_inputs="masc")
    table = pd.read_csv(path)
    (tmp_path / "photos").symlink_to(path.parent / "photos")
    table.loc[7, ["age", "colour", "photo", "note"]] = None
    table.loc[11, "photo"] = "photos/of no kind.txt"
    table.to_csv(tmp_path / "made.csv", index=False)
    with pytest.raises(DataError, match=r"1 rows have none of the inputs .*is row 8"):
        open_dataset(fields_of(tmp_path / "made.csv"))
    skipped = open_dataset(fields_of(tmp_path / "made.csv", on_bad="skip"))
    assert skipped.skipped == {"no input": 1, "no image": 1}
    table.rename(columns={"note": PRESENT}).to_csv(tmp_path / "named.csv", index=False)
    with pytest.raises(DataError, match="Rename it"):
        open_dataset(fields_of(tmp_path / "named.csv", columns={"photo": "image", PRESENT: "text"}))
