"""Which files of a folder are used, for which class and split, and what is said of the others."""

from __future__ import annotations

import os
import shutil
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jdlopt.data import open_dataset, sound
from jdlopt.data.class_folders import SPLITS_WITHIN, read_class_folders
from jdlopt.data.image_decoding import KIND, decode_image
from jdlopt.data.inputs import read_inputs
from jdlopt.data.walk import HIDDEN, IN_HIDDEN, NO_FILES, NOWHERE, PassedOver, files_under, most_of
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)


def save(path, like="image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if like == "sound":
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 800, 0, "NONE", ""))
            file.writeframes(RNG.integers(-99, 99, 80).astype("<i2").tobytes())
        return
    pixels = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
    form = "JPEG" if path.suffix in (".jfif", ".scan") else "PNG"
    Image.fromarray(pixels).save(path, format=form)


def make_folder(root, count=10, like="image", names=("ant", "bee")):
    ending = ".wav" if like == "sound" else ".png"
    for name in names:
        for index in range(count):
            save(root / name / f"{index}{ending}", like)


def opened(folder, **fields):
    return open_dataset({"source": str(folder), **fields})


def told(dataset):
    """The count of each note of a folder's files."""
    return {(note.kind, note.what): note.count for note in dataset.notes}


def files_of(dataset, split):
    pool, rows = dataset.parts[split]
    paths = np.array(dataset.pools[pool].paths, dtype=object)
    return sorted(paths if rows is None else paths[rows])


def everything(dataset):
    return sorted(path for split in dataset.parts for path in files_of(dataset, split))


def count_of(notes, kind):
    return sum(note.count for note in notes if note.kind == kind and note.unit == "files")


@pytest.mark.parametrize("like", ["image", "sound"])
def test_every_file_is_used_or_counted(tmp_path, like):
    ending = ".wav" if like == "sound" else ".png"
    make_folder(tmp_path, like=like)
    ant = tmp_path / "ant"
    for name in (f"second camera/x/1{ending}", f"UPPER{ending.upper()}", "by_content.scan", "none"):
        save(ant / name, like)
    if like == "image":
        save(ant / "a.jfif")
    for name in (
        ".hidden.png",
        "Thumbs.db",
        "notes.txt",
        "b.heic",
        ".git/objects/1",
        "x/.DS_Store",
    ):
        (ant / name).parent.mkdir(parents=True, exist_ok=True)
        (ant / name).write_text("not one of these")
    save(tmp_path / f"beside{ending}", like)
    (tmp_path / "README.md").write_text("of the set")
    (ant / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(ant / "pipe.wav")
    dataset = opened(tmp_path)
    notes = told(dataset)
    assert notes == {
        ("left out", f"{like}s beside the class folders"): 1,
        ("left out", f"files that end in '.md', which hold no {like} that can be read"): 1,
        ("left out", f"files that end in '.txt', which hold no {like} that can be read"): 1,
        ("left out", f"files that end in '.heic', which hold no {like} that can be read"): 1,
        ("left out", HIDDEN): 3,
        ("left out", IN_HIDDEN): 1,
        ("left out", NOWHERE): 1,
        ("left out", NO_FILES): 1,
        ("guessed", f"files that end in '.scan' are {like}s by their content"): 1,
        ("guessed", f"files that have no ending are {like}s by their content"): 1,
        ("guessed", f"{like}s in subfolders are of the class above"): 1,
    }
    there = sum(len(names) for _, _, names in os.walk(tmp_path))
    assert len(everything(dataset)) + count_of(dataset.notes, "left out") == there
    for split in dataset.parts:
        assert len(dataset.read(split).inputs) == dataset.sizes[split]


@pytest.mark.parametrize("like", ["image", "sound"])
def test_links_are_followed_and_loops_end(tmp_path, like):
    store, shots = tmp_path / "store", tmp_path / "shots"
    make_folder(store, like=like)
    shots.mkdir()
    for name in ("ant", "bee"):
        (shots / name).symlink_to(store / name)
    (shots / "all").symlink_to(shots)  # a class that holds itself
    (store / "ant" / "up").symlink_to(tmp_path)
    (store / "ant" / "self").symlink_to(store / "ant")
    (store / "ant" / "twist").symlink_to("twist")
    (store / "bee" / "more").mkdir()
    (store / "bee" / "more" / "more").symlink_to(store / "bee" / "more")
    for index in range(12):  # links among folders: each is gone through once
        (store / "net" / f"{index}").mkdir(parents=True)
        for other in range(12):
            (store / "net" / f"{index}" / f"to {other}").symlink_to(store / "net" / f"{other}")
    (store / "bee" / "net").symlink_to(store / "net")
    dataset = opened(shots)
    assert dataset.spec.class_names == ("ant", "bee")
    assert len(everything(dataset)) == 20
    assert told(dataset)["left out", "links to a folder that holds them"] == 1
    assert told(dataset)["left out", "links to a folder that is gone through already"] > 3
    new = tmp_path / "new"
    save(new / ("one.wav" if like == "sound" else "one.png"), like)
    (new / "monday").symlink_to(store / "ant")
    found = read_inputs(new, dataset.spec.inputs)
    assert len(found.ids) == 11 and "monday/3.wav"[:-4] in {one[:-4] for one in found.ids}
    assert count_of(found.notes, "left out") == 3


def test_one_folder_by_two_names_is_refused(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "wasp").symlink_to(tmp_path / "bee")
    with pytest.raises(DataError, match="'bee' and 'wasp' are one folder"):
        opened(tmp_path)
    (tmp_path / "wasp").unlink()
    splits = tmp_path / "splits"
    make_folder(splits / "train")
    (splits / "test").symlink_to(splits / "train")
    with pytest.raises(DataError, match="'test' and 'train' are one folder"):
        opened(splits)


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN", "training_set"])
@pytest.mark.parametrize("validation", ["valid", "val", "dev", "Validation"])
@pytest.mark.parametrize("test", ["Testing", "TEST", None])
def test_splits_by_any_name(tmp_path, train, validation, test):
    make_folder(tmp_path / train)
    make_folder(tmp_path / validation, 3, names=("bee",))
    (tmp_path / validation / "ant").mkdir()  # of other splits a class may have none
    if test:
        make_folder(tmp_path / test, 2)
    dataset = opened(tmp_path)
    assert dataset.sizes["validation"] == 3
    assert (
        dataset.sizes["test"] == 4 if test else dataset.sizes["train"] + dataset.sizes["test"] == 20
    )
    assert not dataset.notes


def test_classes_may_be_called_as_splits_are(tmp_path):
    make_folder(tmp_path, names=("valid", "invalid", "train", "test"))
    assert opened(tmp_path).spec.class_names == ("invalid", "test", "train", "valid")


def test_two_folders_of_a_split_are_refused(tmp_path):
    make_folder(tmp_path / "train")
    for name in ("dev", "val"):
        make_folder(tmp_path / name, 2)
    with pytest.raises(DataError, match="several folders for the split 'validation': dev, val"):
        opened(tmp_path)


def test_what_lies_beside_the_splits_is_counted(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path, 3, names=("test",))  # without classes, as published test sets are
    make_folder(tmp_path / "extra", 4)
    make_folder(tmp_path / "val", 0)
    for name in ("ant", "bee"):
        (tmp_path / "val" / name).mkdir(parents=True)
    save(tmp_path / "one.png")
    dataset = opened(tmp_path)
    assert told(dataset) == {
        ("left out", "images beside the folders of splits"): 1,
        ("left out", "files in folders that are no split with class folders in it"): 11,
        ("left out", "the folder of a split, which holds no image"): 1,
    }
    assert len(everything(dataset)) == 20


def test_splits_below_the_classes(tmp_path):
    for name in ("ant", "bee"):
        make_folder(tmp_path / name, names=("train",))
        make_folder(tmp_path / name, 3, names=("valid",))
    dataset = opened(tmp_path)
    assert dataset.spec.class_names == ("ant", "bee") and dataset.sizes["validation"] == 6
    assert all(path.parent.name == "valid" for path in files_of(dataset, "validation"))
    assert told(dataset) == {("guessed", "the splits are the subfolders of classes"): 26}
    save(tmp_path / "ant" / "one.png")
    dataset = opened(tmp_path)
    assert told(dataset) == {("guessed", SPLITS_WITHIN): 26}
    assert len(everything(dataset)) == 27


def test_a_class_whose_files_can_not_be_read_says_why(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"cow: .* holds no image .*Passed over: .*'.heic'"):
        opened(tmp_path)
    shutil.rmtree(tmp_path / "bee")
    shutil.rmtree(tmp_path / "cow")
    save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"1 class folders .*Passed over: .*beside the class"):
        opened(tmp_path)


def test_a_list_of_labels_and_the_files_that_it_lacks(tmp_path):
    make_folder(tmp_path)
    lines = [f"{name}/{i}.png,{i},{split}" for name, split in (("ant", "Train"), ("bee", "dev"))
             for i in range(9)]  # fmt: skip
    save(tmp_path / "odd.scan")
    lines.append("odd.scan,3,TESTING")
    (tmp_path / "labels.csv").write_text("\n".join(["file,count,split", *lines]))
    dataset = opened(tmp_path, task="regression")
    assert dataset.sizes == {"train": 9, "validation": 9, "test": 1}
    assert told(dataset) == {
        ("left out", "images that labels.csv does not list"): 2,
        ("guessed", "files that end in '.scan' are images by their content"): 1,
    }
    (tmp_path / "labels.csv").write_text("\n".join(["file,count,split", *lines, "a.txt,3,train"]))
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(DataError, match=r"no such image: 'a.txt'"):
        opened(tmp_path, task="regression")


def test_the_kind_of_a_folder_is_that_of_most_of_its_files(tmp_path):
    kinds = (KIND, sound.KIND)
    assert most_of(tmp_path, kinds) is None
    make_folder(tmp_path, like="sound")
    for name in ("ant", "bee"):
        save(tmp_path / name / "cover.png")
    assert most_of(tmp_path, kinds) is sound.KIND
    dataset = opened(tmp_path)
    assert dataset.spec.input.sample_rate == 800 and len(everything(dataset)) == 20
    assert count_of(dataset.notes, "left out") == 2
    bare = tmp_path / "bare"
    for name in ("ant", "bee"):
        (bare / name).mkdir(parents=True)
        for index in range(10):
            shutil.copy(tmp_path / name / f"{index}.wav", bare / name / str(index))
    assert most_of(bare, kinds) is sound.KIND and len(everything(opened(bare))) == 20


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    for name in ("a.csv", "a.npz", "a.parquet", "a.png", "a.wav"):
        os.mkfifo(tmp_path / name)
    for name in ("a.csv", "a.npz", "a.parquet"):
        with pytest.raises(DataError, match="a pipe, socket or device"):
            opened(tmp_path / name, target="x")
    make_folder(tmp_path / "shots")
    inputs = opened(tmp_path / "shots").spec.inputs
    for name in ("a.csv", "a.npz", "a.png"):
        with pytest.raises(DataError, match="a pipe, socket or device"):
            read_inputs(tmp_path / name, inputs)
    for decode in (lambda path: decode_image(path, 1, None, "it"),
                   lambda path: sound.read_sound(path, "it")):  # fmt: skip
        with pytest.raises(DataError, match="it: is a pipe, socket or device"):
            decode(tmp_path / "a.png")
    passed = PassedOver()
    assert files_under(tmp_path, sound.KIND, passed) == []
    assert "pipes, sockets and devices (5 files)" in str(passed)


def test_class_folders_that_look_alike_are_told(tmp_path):
    make_folder(tmp_path, names=("ant", "Ant", "bee "))
    assert told(opened(tmp_path)) == {
        (
            "guessed",
            "class folders whose names differ only in case or spaces are different classes",
        ): 2
    }
    make_folder(tmp_path / "s" / "train")
    make_folder(tmp_path / "s" / "test", names=("ANT",))
    with pytest.raises(DataError, match=r"does not have: ANT. Did you mean 'ant'"):
        opened(tmp_path / "s")


NAMES = st.sampled_from(["ant", "x", "train", "Valid", ".git", "a", "deep", "__MACOSX"])
FILES = st.sampled_from(
    ["1.png", "2.JPEG", "3", "4.txt", ".hidden", "Thumbs.db", "5.wav", "6.scan"]
)


@given(st.lists(st.tuples(st.lists(NAMES, max_size=3), FILES, st.booleans()), max_size=12))
@settings(max_examples=40)
def test_of_any_tree_every_file_is_used_or_counted(tree):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "shots"
        make_folder(root, 3, names=("ant/0", "bee"))
        for folders, name, is_image in tree:
            path = root.joinpath(*folders, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if is_image:
                shutil.copy(root / "bee" / "0.png", path)
            else:
                path.write_bytes(b"something else")
        there = sum(len(names) for _, _, names in os.walk(root))
        passed = PassedOver()
        try:
            _, files = read_class_folders(root, KIND, passed)
        except DataError:  # a folder without an image, two of one split …: refused by name
            return
        used = [path for by_class in files.values() for some in by_class.values() for path in some]
        assert len(used) == len(set(used))
        assert len(used) + count_of(passed.notes, "left out") == there
