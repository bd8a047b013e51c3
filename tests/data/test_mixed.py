"""Tables whose columns are several inputs: numbers and categories, texts, images and sounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from mixed_tables import make_table
from PIL import Image
from scipy.io import wavfile

from jdlopt.data import open_dataset, read_inputs
from jdlopt.data.check import check_source
from jdlopt.data.check.opened import examined
from jdlopt.data.given import given_inputs, open_given
from jdlopt.data.spec import DataSpec
from jdlopt.errors import ConfigError, DataError
from jdlopt.train.components import open_clean
from jdlopt.train.schema import resolve_data


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("mixed"), 60)


def opened(path, **keys):
    return open_dataset(resolve_data({"data": {"source": str(path), "target": "size", **keys}}))


def test_columns_are_inputs(path):
    dataset, frame = opened(path), pd.read_csv(path)
    inputs = dataset.spec.inputs
    assert list(inputs) == ["table", "photo", "note"]
    assert inputs["table"].feature_names == ("age", "colour")
    assert (inputs["photo"].shape, inputs["photo"].dtype) == ((8, 8, 1), "uint8")
    assert inputs["note"].dtype == "int32"
    assert DataSpec.from_dict(dataset.spec.to_dict()) == dataset.spec
    rows = dataset.parts["validation"][1]
    found = dataset.read("validation").inputs
    np.testing.assert_allclose(found["table"][:, 0], frame.age[rows], rtol=1e-6)
    for image, row in zip(found["photo"], rows, strict=True):
        np.testing.assert_array_equal(image[..., 0], Image.open(path.parent / frame.photo[row]))
    tokens = inputs["note"].text.encode(list(frame.note[rows]))
    np.testing.assert_array_equal(found["note"], tokens)


def test_a_guess_is_told_and_can_be_overruled(path):
    told = list(map(str, opened(path).notes))
    assert "'photo' holds paths of images" in told[0] and "'note' holds texts" in told[1]
    assert all(words.startswith("guessed: ") and "data.columns=" in words for words in told)
    said = opened(path, columns={"photo": "image", "note": "text"})
    assert said.notes == () and list(said.spec.inputs) == ["table", "photo", "note"]
    one = opened(path, columns={"photo": "category", "note": "category"}).spec
    assert {note.kind for note in one.notes} <= {"unseen"} and one.input.feature_names == (
        "age",
        "colour",
        "photo",
        "note",
    )
    checked = check_source({"source": str(path), "target": "size"})
    assert {*told} < {*checked.looked_at} and checked.count("error") == 0


def test_a_table_without_such_columns_is_one_array(path, tmp_path):
    table = pd.read_csv(path)[["age", "colour", "size"]]
    table.to_csv(tmp_path / "plain.csv", index=False)
    spec = opened(tmp_path / "plain.csv").spec
    assert spec.input.shape == (2,) and spec.notes == ()
    assert opened(path, ignore=("photo", "note")).spec.input == spec.input


def test_one_column_of_files_is_the_only_input(path):
    spec = opened(path, ignore=("age", "colour", "note")).spec
    assert spec.input.shape == (8, 8, 1)
    assert read_inputs(path, spec.input).inputs.shape == (60, 8, 8, 1)


def test_sounds(tmp_path):
    tones = np.random.default_rng(0).normal(0, 0.1, (30, 400)).astype(np.float32)
    for row, tone in enumerate(tones):
        wavfile.write(tmp_path / f"{row}.wav", 8000, tone)
    frame = {"clip": [f"{row}.wav" for row in range(30)], "x": range(30), "size": [0, 1] * 15}
    pd.DataFrame(frame).to_csv(tmp_path / "made.csv", index=False)
    dataset = opened(tmp_path / "made.csv")
    assert dataset.spec.inputs["clip"].sample_rate == 8000
    rows = dataset.parts["train"][1]
    np.testing.assert_allclose(dataset.read("train").inputs["clip"], tones[rows])


def test_new_rows_are_read_as_in_training(path, monkeypatch):
    dataset, frame = opened(path), pd.read_csv(path)
    rows = dataset.parts["test"][1]
    expected = dataset.read("test").inputs
    read = read_inputs(path, dataset.spec.inputs)
    monkeypatch.chdir(path.parent)
    given = given_inputs(frame.iloc[rows], dataset.spec.inputs)
    assert given.ids == [str(row) for row in rows]
    for name, values in expected.items():
        np.testing.assert_array_equal(read.inputs[name][rows], values)
        np.testing.assert_array_equal(given.inputs[name], values)
    with pytest.raises(DataError, match=r"lacks 1 of the 4 columns.*note"):
        given_inputs(frame.drop(columns="note"), dataset.spec.inputs)


def test_damage_is_named_or_left_out(path, tmp_path):
    table = pd.read_csv(path)
    for row, name in enumerate(table.photo):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        damaged = row in (1, 4)
        image = b"no image" if damaged else (path.parent / name).read_bytes()
        (tmp_path / name).write_bytes(image)
    table.loc[2, "photo"] = None
    table.to_csv(tmp_path / "made.csv", index=False)
    with pytest.raises(DataError, match="'photo' names no image in 1 rows, the first is row 3"):
        opened(tmp_path / "made.csv")
    dataset = opened(tmp_path / "made.csv", on_bad="skip")
    kept = {split: len(dataset.read(split).targets) for split in ("train", "validation", "test")}
    assert sum(kept.values()) == 57 and kept == dataset.sizes
    assert sum(dataset.skipped.values()) == 3


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"columns": {"phot": "image"}}, DataError, "data.columns: there is no column 'phot'"),
        ({"columns": {"size": "text"}}, DataError, "'size' is data.target"),
        ({"columns": {"age": "text"}, "text_column": "note"}, DataError, "the only input"),
        ({"columns": {"age": "image"}}, DataError, "'age' names no image at all"),
        ({"columns": {"age": "picture"}}, ConfigError, "data.columns.age: 'picture' is unknown"),
    ],
)
def test_wrong_columns_are_named(path, keys, error, message):
    with pytest.raises(error, match=message):
        opened(path, **keys)


def test_equal_examples_and_conflicts_are_judged_by_all_inputs(path, tmp_path):
    table = pd.read_csv(path)
    (tmp_path / "photos").symlink_to(path.parent / "photos")
    table.loc[3] = table.loc[2]  # all equal
    table.loc[5, ["age", "colour"]] = table.loc[4, ["age", "colour"]]  # the table alone
    table.loc[7] = table.loc[6]
    table.loc[7, "size"] = {"no": "yes", "yes": "no"}[table["size"][6]]
    table.to_csv(tmp_path / "made.csv", index=False)
    section = {"source": str(tmp_path / "made.csv"), "target": "size"}
    found = {one.kind: one for one in check_source(section).findings}
    first = int(pd.read_csv(tmp_path / "made.csv").index[0]) + 1
    assert found["duplicates"].parts[0].rows.tolist() == [3 + first]
    assert "equal in all inputs" in found["duplicates"].text
    assert found["conflicts"].parts[0].rows.tolist() == [6 + first, 7 + first]
    fields = resolve_data({"data": {**section, "preprocess": {"duplicates": "drop"}}})
    whole, cleaned = (opener(fields).parts["train"][1] for opener in (open_dataset, open_clean))
    assert {2, 3, 4, 5} <= set(whole.tolist())
    assert set(whole.tolist()) - set(cleaned.tolist()) == {3}


def test_what_is_near_in_all_inputs_is_a_near_duplicate(tmp_path):
    draw = np.random.default_rng(0)
    photos = draw.integers(0, 256, (90, 12, 12, 1), dtype=np.uint8)
    rows = draw.normal(size=(90, 3)).astype(np.float32)
    photos[61:64] = np.clip(photos[1:4].astype(int) + 1, 0, 255)
    rows[61:63] = rows[1:3]  # the third is another row with an image of the same
    parts = {"train": slice(60), "validation": slice(60, 75), "test": slice(75, 90)}
    given = {
        split: ({"photo": photos[some], "row": rows[some]}, np.arange(90)[some] % 2)
        for split, some in parts.items()
    }
    told = list(examined(open_given({"source": "made"}, given), True))
    [found] = [one for one in told if one.kind == "near_duplicates"]
    assert [part.count for part in found.parts] == [2]
    assert "validation like train" in found.where
