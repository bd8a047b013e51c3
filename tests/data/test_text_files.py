"""A folder of texts: classes by its folders, a vocabulary of the training texts, and damage."""

from __future__ import annotations

import numpy as np
import pytest

from jdlopt.data.check import check_source
from jdlopt.data.fields import DataFields
from jdlopt.data.inputs import read_inputs
from jdlopt.data.origin import origins
from jdlopt.data.source import kind_of_source, open_dataset
from jdlopt.data.text_files import read_file
from jdlopt.errors import DataError


def write(folder, count=40, splits=("",)):
    for split in splits:
        for index in range(count):
            place = folder / split / ("good", "bad")[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            text = f"a film that {'pleased' if index % 2 == 0 else 'bored'} me {split} {index}"
            (place / f"{index}.txt").write_text(text, "utf-8")
    return folder


def section(folder, **more):
    return {"source": str(folder), "text": {"max_tokens": 12}, **more}


def test_a_folder_of_texts_is_opened_by_its_classes(tmp_path):
    dataset = open_dataset(section(write(tmp_path / "films")))
    assert dataset.spec.class_names == ("bad", "good") and dataset.spec.task == "classification"
    assert sum(dataset.sizes.values()) == 40
    train = dataset.read("train")
    assert train.inputs.shape == (dataset.sizes["train"], 12) and train.inputs.dtype == np.int32
    one, label = dataset.records("train")[0]
    np.testing.assert_array_equal(one, train.inputs[0])
    assert label == train.targets[0]
    assert "pleased" in dataset.spec.input.text.vocabulary()
    files = origins(dataset)["train"]["file"]
    assert [name.split("/")[0] == "good" for name in files] == train.targets.astype(bool).tolist()


def test_the_vocabulary_is_that_of_training_texts_alone(tmp_path):
    folder = write(tmp_path / "films", splits=("train", "test"))
    for path in (folder / "test").rglob("*.txt"):
        path.write_text("zebra zebra zebra zebra", "utf-8")
    dataset = open_dataset(section(folder))
    known = dataset.spec.input.text.vocabulary()
    assert dataset.sizes["test"] == 40 and not any("zeb" in token for token in known)


def test_new_texts_are_read_from_a_folder_as_in_training(tmp_path):
    folder = write(tmp_path / "films")
    spec = open_dataset(section(folder)).spec.input
    found = read_inputs(folder, spec)
    assert len(found.ids) == 40 and found.ids[0] == "bad/1.txt"
    expected = spec.text.encode([(folder / name).read_text("utf-8") for name in found.ids])
    np.testing.assert_array_equal(found.inputs, expected)


def test_a_file_that_is_no_text_is_named_or_left_out(tmp_path):
    folder = write(tmp_path / "films", 20)
    (folder / "good" / "2.txt").write_bytes(b"caf\xe9 \xff")
    with pytest.raises(DataError, match=r"2\.txt: can't be read as a text: .*on_bad='skip'"):
        read_file(folder / "good" / "2.txt")
    dataset = open_dataset(section(folder, on_bad="skip"))
    for split in ("train", "validation", "test"):
        dataset.read(split)
    assert sum(dataset.sizes.values()) == 19
    check = check_source(section(folder, on_bad="skip"))
    assert check.kind == "text"
    assert [one.parts[0].name for one in check.findings if one.kind == "damaged_file"] == [
        "good/2.txt"
    ]


def test_a_folder_is_of_what_most_of_its_files_are(tmp_path):
    folder = write(tmp_path / "films", 4)
    (folder / "good" / "cover.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert kind_of_source(DataFields(str(folder))) == "texts"
    for index in range(5):
        (folder / "good" / f"{index}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert kind_of_source(DataFields(str(folder))) == "images"
