"""Images with masks: folders, arrays and archives of them, and bad ones named with their file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jdlopt.data import mask_colours, open_dataset
from jdlopt.data.bundled.shapes.drawing import draw
from jdlopt.data.dataset import class_counts, counts_of
from jdlopt.data.fields import DataFields
from jdlopt.data.given import open_given
from jdlopt.data.masks import image_files, images_in
from jdlopt.errors import DataError

RNG = np.random.default_rng(0)
SHAPE = (6, 5)


def mask_of(classes=3):
    mask = RNG.integers(0, classes, SHAPE).astype(np.uint8)
    mask[0, :classes] = np.arange(classes)  # each has a pixel
    return mask


def save(pixels, path, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P") if image.mode != "L" else image
        image.putpalette(mask_colours.palette().ravel().tolist())
    image.save(path)


def make_folder(root, count=10, palette=False, place="", ending=".png"):
    masks = {}
    for index in range(count):
        name = f"{place}{index}"
        masks[name] = mask_of()
        save(RNG.integers(0, 256, (*SHAPE, 3), dtype=np.uint8), root / "images" / (name + ending))
        save(masks[name], root / "masks" / f"{name}.png", palette)
    return masks


@pytest.mark.parametrize("palette", [False, True])
def test_masks_beside_images_are_class_numbers(tmp_path, palette):
    saved = make_folder(tmp_path, palette=palette, ending=".jpg")
    saved["0"][1, 1] = 255
    save(saved["0"], tmp_path / "masks/0.png", palette)
    (tmp_path / "masks/notes.txt").write_text("not a mask")
    dataset = open_dataset({"source": str(tmp_path)})
    spec = dataset.spec
    assert (spec.task, spec.positions, spec.target_shape) == ("segmentation", 2, SHAPE)
    assert (spec.class_names, spec.input.shape) == (("0", "1", "2"), (*SHAPE, 3))
    assert dataset.sizes == {"train": 7, "validation": 1, "test": 2}
    seen = {}
    for split in dataset.sizes:
        inputs, targets = dataset.read(split)
        assert inputs.shape[1:] == (*SHAPE, 3) and targets.dtype == np.int32
        files = dataset.origins["train"]["file"][dataset.rows(split)]
        seen |= {file.split("/")[1].removesuffix(".jpg"): one for file, one in zip(files, targets)}
        np.testing.assert_array_equal(dataset.records(split)[0][1], targets[0])
    for name, mask in saved.items():
        np.testing.assert_array_equal(seen[name], np.where(mask == 255, -1, mask.astype(int)))
    assert any("notes.txt" in str(note) for note in dataset.notes)


@pytest.mark.parametrize("layout", ["train/images", "images/train"])
def test_splits_and_names_of_classes(tmp_path, layout):
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        inner = layout.startswith("images")
        make_folder(
            tmp_path if inner else tmp_path / split, count, place=f"{split}/" if inner else ""
        )
    (tmp_path / "classes.txt").write_text("nothing\nwheel\ndoor\nwindow\n")
    dataset = open_dataset({"source": str(tmp_path), "image_size": (12, 10)})
    assert dataset.sizes == {"train": 6, "validation": 2, "test": 3}
    assert dataset.spec.class_names == ("nothing", "wheel", "door", "window")
    small, large = (open_dataset({"source": str(tmp_path)}), dataset)
    np.testing.assert_array_equal(  # by the nearest pixel
        large.read("test").targets, small.read("test").targets.repeat(2, 1).repeat(2, 2)
    )
    found = image_files(tmp_path)
    assert len(found) == 11 and all("images" in path.parts for path in found)
    train = tmp_path / "train" if layout.startswith("train") else tmp_path
    assert images_in(train) == train / "images" and images_in(tmp_path / "x") == tmp_path / "x"


def colours(root):
    save(RNG.integers(0, 256, (*SHAPE, 3), dtype=np.uint8), root / "masks/3.png")


def other_size(root):
    save(np.zeros((4, 4), np.uint8), root / "masks/3.png")


def lossy(root):
    (root / "masks/3.png").unlink()
    save(mask_of(), root / "masks/3.jpg")


def turned(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros(SHAPE[::-1], np.uint8)).save(root / "images/3.png", exif=exif)


def unknown(root):
    (root / "classes.txt").write_text("a\nb\nc\n")
    mask = mask_of()
    mask[2, 3] = 9
    save(mask, root / "masks/3.png")


BAD = {
    "an image without a mask": (
        lambda root: (root / "masks/3.png").unlink(),
        r"images/3.png: has no mask: expected one called '3'.*masks",
    ),
    "a mask without an image": (
        lambda root: (root / "images/3.png").unlink(),
        r"masks/3.png: has no image: expected one called '3'.*images",
    ),
    "another size": (other_size, r"masks/3.png: is 4 x 4 pixels where its image .*3.png is 6 x 5"),
    "a value of no class": (
        unknown, r"masks/3.png: holds 9 at row 3, column 4, which no class has.*0 to 2 \(a, b, c\)"
    ),
    "colours": (colours, r"masks/3.png: holds colours \(mode RGB\).*palette"),
    "a format that loses values": (lossy, r"masks/3.jpg: is a JPEG, which may change values"),
    "an image that EXIF turns": (turned, r"images/3.png: EXIF says.*Save the image turned"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_ones_are_named_or_left_out(tmp_path, case):
    damage, message = BAD[case]
    make_folder(tmp_path)
    damage(tmp_path)

    def whole(fields):
        dataset = open_dataset({"source": str(tmp_path), **fields})
        for split in dataset.sizes:
            dataset.read(split)
        return dataset

    with pytest.raises(DataError, match=message):
        whole({})
    dataset = whole({"on_bad": "skip"})
    assert sum(dataset.sizes.values()) == 9 and sum(dataset.skipped.values()) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: make_folder(root / "test"), r"there is one for test only"),
        (lambda root: (root / "images").mkdir(), r"expected folders images/ and masks/"),
        (
            lambda root: (make_folder(root), save(mask_of(), root / "images/3.bmp")),
            "which is meant",
        ),
        (
            lambda root: (make_folder(root), (root / "classes.txt").write_text("a\nb\na\n")),
            r"classes.txt: holds 'a' twice",
        ),
        (
            lambda root: [
                save(mask_of(2) * 255, root / f"masks/{name}.png") for name in make_folder(root)
            ],
            r"void.*write a mask of two as 0 and 1",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_no_masks(tmp_path, make, message):
    make(tmp_path)
    fields = {"source": str(tmp_path), "task": "segmentation", "validation_fraction": 0.4}
    with pytest.raises(DataError, match=message):
        open_dataset(fields)


def test_masks_in_arrays(tmp_path):
    images = RNG.integers(0, 256, (20, *SHAPE, 1), dtype=np.uint8)
    masks = np.stack([mask_of() for _ in range(20)]).astype(np.int64)
    masks[3, 2, 2] = -1
    path = tmp_path / "made.npz"
    np.savez(path, x=images, y=masks, class_names=np.array(["sky", "sea", "land"]))
    fields = {"source": str(path), "task": "segmentation"}
    dataset = open_dataset(fields)
    assert dataset.spec.class_names == ("sky", "sea", "land")
    for split in dataset.sizes:
        rows = dataset.rows(split)
        np.testing.assert_array_equal(dataset.read(split).targets, masks[rows])
    given = open_given(DataFields("x", task="segmentation"), (images, masks.astype(np.float32)))
    assert given.spec.class_names == ("0", "1", "2") and given.spec.positions == 2
    with pytest.raises(DataError, match=r"set data\.task='segmentation'"):
        open_dataset({"source": str(path)})
    for bad, message in (
        (masks + 0.5, r"the mask of example 0 holds 0.5 at row 1, column 1"),
        (masks[:, 0], r"masks are \[examples, height, width\]"),
        (np.where(masks == 2, 9, masks), "9, which no class has"),
        (masks * 0, "holds class 0 only"),
    ):
        np.savez(path, x=images, y=bad, class_names=np.array(["sky", "sea", "land"]))
        if "only" in message:
            np.savez(path, x=images, y=bad)
        with pytest.raises(DataError, match=message):
            open_dataset(fields)


def test_classes_are_counted_in_a_few_masks_at_a_time(tmp_path, monkeypatch):
    make_folder(tmp_path)
    dataset = open_dataset({"source": str(tmp_path)})
    expected = counts_of(dataset.targets("train"), dataset.spec)
    pool, _ = dataset._part("train")
    sizes, read = [], type(pool).targets
    monkeypatch.setattr("jdlopt.data.dataset.PART", 3)
    monkeypatch.setattr(
        type(pool), "targets", lambda own, rows: sizes.append(len(rows)) or read(own, rows)
    )
    np.testing.assert_array_equal(class_counts(dataset), expected)
    assert max(sizes) == 3 and sum(sizes) == dataset.sizes["train"]


def test_gaps_in_the_numbers_are_told_or_refused(tmp_path):
    images = np.zeros((12, *SHAPE), np.uint8)
    masks = np.stack([mask_of() for _ in range(12)])
    path = tmp_path / "made.npz"
    np.savez(path, x=images, y=np.where(masks == 2, 3, masks))
    dataset = open_dataset({"source": str(path), "task": "segmentation"})
    assert dataset.spec.num_classes == 4
    assert any("classes that no pixel has" in note.what for note in dataset.notes)
    np.savez(path, x=images, y=masks * 60)
    with pytest.raises(DataError, match=r"class numbers 0, 60, 120, and none of the 118 others"):
        open_dataset({"source": str(path), "task": "segmentation"})


def test_masks_are_written_as_they_are_read(tmp_path):
    mask = np.array([[0, 1], [2, -1]])
    for classes, mode in ((3, "P"), (300, "I;16")):
        image = mask_colours.as_image(mask, classes)
        image.save(tmp_path / "m.png")
        with Image.open(tmp_path / "m.png") as again:
            assert again.mode == mode
            np.testing.assert_array_equal(np.asarray(again), np.where(mask < 0, 255, mask))
    assert mask_colours.coloured(mask)[1, 1].tolist() == [224, 224, 192]


def test_shapes_are_a_function_of_their_seed_and_number():
    few, more = draw(3, 4), draw(3, 6)
    np.testing.assert_array_equal(few.images, more.images[:4])
    np.testing.assert_array_equal(few.masks, more.masks[:4])
    assert (draw(4, 4).masks != few.masks).any()
    shares = np.bincount(more.masks.ravel(), minlength=4) / more.masks.size
    assert 0.4 < shares[0] < 0.9 and (shares[1:] > 0.01).all()
