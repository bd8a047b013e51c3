from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jdlopt.data import image_decoding, open_dataset
from jdlopt.data import images as images_room
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)


def save(path, size=(6, 5), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    pixels = RNG.integers(0, 256, (*size, *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def make_folder(root, count=10, mode="RGB", classes=("ant", "bee")):
    return {
        f"{name}/{index}.png": save(root / name / f"{index}.png", mode=mode)
        for name in classes
        for index in range(count)
    }


def relative(pool, index, root):
    return pool.paths[index].relative_to(root).as_posix()


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 3)])
def test_a_folder_a_class(tmp_path, mode, channels):
    saved = make_folder(tmp_path, mode=mode)
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    dataset = open_dataset({"source": str(tmp_path)})
    assert dataset.spec.class_names == ("ant", "bee")
    assert dataset.spec.input.shape == (6, 5, channels)
    assert dataset.spec.input.dtype == "uint8"
    assert dataset.sizes == {"train": 14, "validation": 2, "test": 4}
    for split in dataset.sizes:
        inputs, targets = dataset.read(split)
        rows = dataset.parts[split][1]
        for image, target, row in zip(inputs, targets, rows):
            name = relative(dataset.pools["train"], row, tmp_path)
            expected = saved[name].reshape(6, 5, -1)
            if mode == "RGBA":
                share = expected[..., 3:] / 255
                expected = expected[..., :3] * share + 255 * (1 - share)
            np.testing.assert_allclose(image, expected, atol=1 if mode == "RGBA" else 0)
            assert name.startswith(dataset.spec.class_names[target])
        np.testing.assert_array_equal(dataset.records(split)[0][0], inputs[0])


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_folders_for_splits(tmp_path, validation):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", count=3)
    if validation:
        make_folder(tmp_path / validation, count=2)
    dataset = open_dataset({"source": str(tmp_path)})
    expected = {"train": 20, "validation": 4} if validation else {"train": 18, "validation": 2}
    assert dataset.sizes == expected | {"test": 6}


def test_images_are_resized_when_asked(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "ant" / "big.png", size=(12, 12))
    fields = {"source": str(tmp_path)}
    with pytest.raises(DataError, match=r"(12 x 12|6 x 5).*data.image_size"):
        open_dataset(fields).read("test")  # where the other size may lie
    dataset = open_dataset(fields | {"image_size": (4, 3)})
    assert dataset.spec.input.shape == (4, 3, 3)
    assert dataset.read("train").inputs.shape[1:] == (4, 3, 3)
    assert open_dataset(fields | {"image_size": (4,)}).spec.input.shape == (4, 4, 3)
    with pytest.raises(DataError, match=r"data.image_size: expected"):
        open_dataset(fields | {"image_size": (4, 0)})


@pytest.mark.parametrize("separate", [False, True])
def test_test_images_are_not_opened_before_they_are_read(tmp_path, monkeypatch, separate):
    make_folder(tmp_path / "train" if separate else tmp_path)
    if separate:
        make_folder(tmp_path / "test")
    opened, original = set(), image_decoding.opened
    for room in (images_room, image_decoding):
        monkeypatch.setattr(
            room, "opened", lambda file, name: opened.add(file) or original(file, name)
        )
    dataset = open_dataset({"source": str(tmp_path)})
    dataset.read("train")
    dataset.read("validation")
    pool, rows = dataset.parts["test"]
    paths = np.array(dataset.pools[pool].paths, dtype=object)
    test_paths = set(paths if rows is None else paths[rows])
    assert opened
    assert not opened & test_paths
    dataset.read("test")
    assert test_paths <= opened


def test_an_unreadable_image_is_named(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test")
    dataset = open_dataset({"source": str(tmp_path)})
    (tmp_path / "train" / "bee" / "3.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"bee/3.png: can't be read as an image"):
        open_dataset({"source": str(tmp_path)})
    truncated = tmp_path / "test" / "ant" / "1.png"
    truncated.write_bytes(truncated.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"ant/1.png: can't be read as an image"):
        dataset.read("test")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="exceeds limit"):
        open_dataset({"source": str(tmp_path)})


def test_wrong_folders(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="found 0 class folders"):
        open_dataset({"source": str(empty)})
    one = tmp_path / "one"
    make_folder(one, classes=("ant",))
    with pytest.raises(DataError, match=r"found 1 class folders \(ant\), expected at least 2"):
        open_dataset({"source": str(one)})
    (one / "bee").mkdir()
    with pytest.raises(DataError, match="bee: the class folder holds no image"):
        open_dataset({"source": str(one)})
    only_test = tmp_path / "only_test"
    make_folder(only_test / "test")
    with pytest.raises(DataError, match="none called train"):
        open_dataset({"source": str(only_test)})
    make_folder(only_test / "train", classes=("ant", "cow"))
    with pytest.raises(DataError, match="classes that train/ does not have: bee"):
        open_dataset({"source": str(only_test)})
    make_folder(tmp_path / "good")
    with pytest.raises(DataError, match=r"needs a file labels.csv"):
        open_dataset({"source": str(tmp_path / "good"), "task": "regression"})


def test_colour_among_grey_is_read_as_grey_and_counted(tmp_path):
    make_folder(tmp_path / "train", mode="L")
    saved = make_folder(tmp_path / "test", count=2, mode="RGB")
    dataset = open_dataset({"source": str(tmp_path)})
    assert dataset.spec.input.shape == (6, 5, 1) and not dataset.notes
    image = dataset.read("test").inputs[0]
    np.testing.assert_allclose(
        image[..., 0], saved["ant/0.png"] @ np.array([0.299, 0.587, 0.114]), atol=1
    )
    for _ in range(2):  # counted once, however often they are read
        dataset.read("test")
        (note,) = dataset.notes
        assert (note.what, note.count) == (image_decoding.AS_GREY, 4)
    save(tmp_path / "train" / "ant" / "0.png")
    dataset = open_dataset({"source": str(tmp_path)})
    assert dataset.spec.input.shape == (6, 5, 3)
    (note,) = dataset.notes
    assert (note.what, note.count) == (image_decoding.AS_COLOUR, 19)


def test_pixels_that_would_lose_their_values_are_refused(tmp_path):
    make_folder(tmp_path / "train", mode="L")
    make_folder(tmp_path / "test", count=2, mode="L")
    path = tmp_path / "train" / "ant" / "0.png"
    Image.fromarray(np.full((6, 5), 4000, np.uint16)).save(path)
    with pytest.raises(DataError, match="no value of the 1 such images is above 4,000 of 65,535"):
        open_dataset({"source": str(tmp_path)})
    Image.fromarray(np.full((6, 5), 65_535, np.uint16)).save(path)
    (note,) = open_dataset({"source": str(tmp_path)}).notes
    assert (note.what, note.count) == (image_decoding.DEEP, 1)
    path.unlink()
    Image.fromarray(np.zeros((6, 5), np.float32)).save(path.with_suffix(".tif"))
    with pytest.raises(DataError, match="mode F; expected 8 or 16 bits a channel"):
        open_dataset({"source": str(tmp_path)})


@pytest.mark.parametrize("separate", [False, True])
def test_images_that_can_not_be_decoded_are_skipped_when_asked(tmp_path, separate):
    make_folder(tmp_path / "train" if separate else tmp_path)
    if separate:
        make_folder(tmp_path / "test", count=5)
    fields = {"source": str(tmp_path), "on_bad": "skip"}
    whole = open_dataset(fields)
    assert whole.skipped == {}
    broken = {}
    for split, (pool, rows) in whole.parts.items():
        first = 0 if rows is None else rows[0]
        broken[split] = path = whole.pools[pool].paths[first]
        path.write_bytes(path.read_bytes()[:-40])  # its header is whole
    with pytest.raises(DataError, match=r"can't be read as an image.*data.on_bad='skip'"):
        open_dataset({"source": str(tmp_path)}).read("train")
    dataset = open_dataset(fields)
    assert dataset.skipped == {"unreadable image": 2}
    assert dataset.sizes == {
        split: size - (split != "test") for split, size in whole.sizes.items()
    }  # of test images nothing is known yet
    for split, (pool, rows) in whole.parts.items():
        inputs = dataset.read(split).inputs
        assert len(inputs) == dataset.sizes[split] == whole.sizes[split] - 1
        expected = [
            whole.pools[pool][index][0] for index in (range(10) if rows is None else rows)[1:]
        ]
        np.testing.assert_array_equal(inputs, np.stack(expected))
        assert len(dataset.records(split)) == len(inputs)
    assert dataset.skipped == {"unreadable image": 3}
    assert all(str(broken[split]) in str(dataset.skips) for split in ("train", "validation"))


def test_skipping_is_for_damage_alone(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "ant" / "big.png", size=(12, 12))
    with pytest.raises(DataError, match=r"data.image_size"):
        open_dataset({"source": str(tmp_path), "on_bad": "skip"}).read("test")


def test_a_class_may_not_be_skipped_whole(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test")
    for path in (tmp_path / "train" / "bee").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no training image is left of bee: 10 examples"):
        open_dataset({"source": str(tmp_path), "on_bad": "skip"})
