"""Images with masks: a folder ``images/`` beside a folder ``masks/`` of files of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jdlopt.data.coding import Coding
from jdlopt.data.csv_text import read_text
from jdlopt.data.damage import Skipped
from jdlopt.data.dataset import Dataset, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import LabelledFiles, split_files
from jdlopt.data.image_decoding import KIND, Changes
from jdlopt.data.images import ImagePool, load, resize_to, survey
from jdlopt.data.mask_coder import TASK, make_coding, occurring, sides
from jdlopt.data.mask_files import read_mask
from jdlopt.data.notes import Notes
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.data.split import split_named
from jdlopt.data.walk import PassedOver, entries, files_under, is_aside
from jdlopt.errors import DataError, listing, nearest

IMAGES, MASKS = "images", "masks"
CLASSES = "classes.txt"
"""The file in the folder that names the classes, one a line, in the order of their numbers."""


@dataclass(frozen=True)
class MaskPool:
    """Image files and the mask of each.

    Attributes:
      images: the images.
      masks: the files of their masks.
      coding: which numbers are classes, and the size of a mask.
    """

    images: ImagePool
    masks: tuple[Path, ...]
    coding: Coding

    @property
    def paths(self) -> tuple[Path, ...]:
        """The images' files, in the order of the examples."""
        return self.images.paths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return self.images[index][0], self._mask(index)

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the decoded images and masks at the indices, or all of them."""
        return Arrays(self.images.read(indices).inputs, self.targets(indices))

    def targets(self, indices: np.ndarray | None) -> Int32[np.ndarray, "n height width"]:
        """Returns the masks at the indices, or of all images, whose pixels are not decoded."""
        chosen = range(len(self)) if indices is None else indices.tolist()
        return np.stack([self._mask(index) for index in chosen])

    def _mask(self, index: int) -> Int32[np.ndarray, "height width"]:
        path = self.masks[index]
        mask = read_mask(path, self.paths[index], self.coding, self.images.size)
        if mask.shape != self.coding.shape:
            raise DataError(
                f"{path}: is {sides(mask.shape)} pixels where those of training are "
                f"{sides(self.coding.shape)}. Set data.image_size to resize images and masks."
            )
        return mask


def is_meant(folder: Path, fields: DataFields) -> bool:
    """Returns whether a folder is one of images with masks: it holds both, or the task asks."""
    if fields.task != "auto":
        return fields.task == TASK
    return _has_pair(folder) or bool(_split_folders(folder))


def image_files(folder: Path) -> list[Path]:
    """Returns the images of a folder that have a mask, of all splits.

    Raises:
      DataError: as `open_masks` does of folders.
    """
    found = _pairs(folder, True, Skipped(), PassedOver())
    return [one.image for some in found.values() for one in some]


def images_in(folder: Path) -> Path:
    """Returns the folder of images, where there is one beside their masks; else the folder."""
    return folder / IMAGES if _has_pair(folder) else folder


def open_masks(folder: Path, fields: DataFields) -> Dataset:
    """Opens a folder with ``images/`` and ``masks/``, or ``train/images/``, ``test/images/`` ….

    The mask of ``images/NAME.jpg`` is ``masks/NAME.png``, in folders of the same names, and has its
    size. Its pixels are class numbers, grey or the indices of a palette; 255 is void. Where all
    images lie in folders named like splits (``images/train/``), these are the splits. A file
    `CLASSES` names the classes; without one they are the numbers up to the largest that a mask of
    the training or validation split has. Images are read as in `jdlopt.data.images.open_images`.

    With ``data.on_bad='skip'`` an image without a mask, a mask without an image and those that
    can't be used are left out.

    Raises:
      DataError: there are no such folders; an image has no mask or a mask no image; a mask has
        another size, holds a number that no class has, or colours.
    """
    skipped, passed = Skipped(), PassedOver()
    pairs = _pairs(folder, fields.on_bad == "skip", skipped, passed)
    mask_of = {one.image: one.mask for some in pairs.values() for one in some}
    paths = {split: tuple(one.image for one in some) for split, some in pairs.items()}
    names = _class_names(folder, passed.notes)
    size = resize_to(fields.image_size)
    known = Coding(TASK, tuple(range(len(names))), names) if names else None

    def read(image: Path) -> None:
        load(image)
        read_mask(mask_of[image], image, known, None)

    beside = _beside(folder, paths["train"], fields)
    # masks are no classes that files could be split by
    files = LabelledFiles(Coding(TASK), paths, {"train": np.zeros(0)}, beside)
    parts, seen = split_files(files, fields, folder, "image", read, skipped)
    changes = Changes(skipped.changed)
    shape, channels = survey(seen, size, changes)
    if known is None:
        found = [occurring(read_mask(mask_of[image], image, None, None)) for image in seen]
        present = np.unique(np.concatenate(found))
    else:
        present = np.arange(len(names))
    coding = make_coding(present, names, shape, f"{folder}, {MASKS}/")
    pools: dict[str, Pool] = {
        split: MaskPool(
            ImagePool(some, np.zeros(len(some), np.int32), channels, size, shape, changes),
            tuple(mask_of[image] for image in some),
            coding,
        )
        for split, some in paths.items()
    }
    return make_dataset(
        fields=fields,
        name=folder.resolve().name,
        coding=coding,
        inputs=InputSpec((*shape, channels), "uint8"),
        pools=pools,
        labels=lambda: pools["train"].targets(None),
        parts=parts,
        checked=("train", "validation"),
        skipped=skipped,
        beside=beside,
        notes=passed.notes,
        origins=files.origins(folder),
    )


class _Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path


def _has_pair(folder: Path) -> bool:
    return (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()


def _split_folders(folder: Path) -> dict[str, Path]:
    """Returns the folder of each split that holds images and masks.

    Raises:
      DataError: two are of one split.
    """
    found: dict[str, Path] = {}
    for entry in entries(folder) if folder.is_dir() else ():
        split, path = split_named(entry.name), Path(entry.path)
        if split is None or not _has_pair(path):
            continue
        if split in found:
            raise DataError(
                f"{folder}: has two folders for the split {split!r}: {found[split].name} and "
                f"{path.name}. Leave one, or put their files together."
            )
        found[split] = path
    return found


def _pairs(
    folder: Path, skip: bool, skipped: Skipped, passed: PassedOver
) -> dict[str, list[_Pair]]:
    """Returns the images of each split with their masks; ``train`` is always there."""
    roots = {"train": folder} if _has_pair(folder) else _split_folders(folder)
    if "train" not in roots:
        other = f" (there is one for {listing(roots)} only)" if roots else ""
        raise DataError(
            f"{folder}: expected folders {IMAGES}/ and {MASKS}/ with files of the same names, or "
            f"train/{IMAGES}/ and train/{MASKS}/{other}."
        )
    used = {folder / CLASSES, *(root / part for root in roots.values() for part in (IMAGES, MASKS))}
    for place in {folder, *roots.values()}:
        for entry in entries(place):
            path = Path(entry.path)
            if path in used or path in roots.values():
                continue
            if path.is_dir() and not is_aside(entry.name):
                passed.folder(f"files in folders beside {IMAGES}/ and {MASKS}/", path)
            elif not path.is_dir():
                passed.file(f"files beside {IMAGES}/ and {MASKS}/", path)
    found = {split: _pairs_in(root, skip, skipped, passed) for split, root in roots.items()}
    return _by_subfolder(folder / IMAGES, found["train"]) if roots == {"train": folder} else found


def _pairs_in(root: Path, skip: bool, skipped: Skipped, passed: PassedOver) -> list[_Pair]:
    images, masks = (_by_name(root / part, passed) for part in (IMAGES, MASKS))
    problems = [
        ("image without a mask", images, masks, MASKS, "mask"),
        ("mask without an image", masks, images, IMAGES, "image"),
    ]
    for reason, these, those, place, what in problems:
        for name in [name for name in these if name not in those]:
            message = (
                f"{these[name]}: has no {what}: expected one called {Path(name).name!r}, of any "
                f"image's ending, in {(root / place / name).parent}.{nearest(name, those)}"
            )
            if not skip:
                alone = sum(one not in those for one in these)
                more = f" {alone - 1:,} more have none." if alone > 1 else ""
                raise DataError(f"{message}{more} data.on_bad='skip' leaves such files out.")
            skipped.add(reason, str(these[name]))
    pairs = [_Pair(images[name], masks[name]) for name in images if name in masks]
    if not pairs:
        raise DataError(f"{root}: {IMAGES}/ and {MASKS}/ hold no image ({listing(KIND.suffixes)}).")
    return pairs


def _by_name(folder: Path, passed: PassedOver) -> dict[str, Path]:
    """Returns a folder's images by their paths in it without the ending.

    Raises:
      DataError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in files_under(folder, KIND, passed):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(
                f"{path}: has the name of {found[name].name}; which is meant can't be known. "
                "Remove one of them."
            )
        found[name] = path
    return found


def _by_subfolder(images: Path, pairs: Sequence[_Pair]) -> dict[str, list[_Pair]]:
    """Returns pairs by split, where all images lie in folders named like splits."""
    inner = [one.image.relative_to(images).parts for one in pairs]
    splits = [split_named(parts[0]) if len(parts) > 1 else None for parts in inner]
    if None in splits or "train" not in splits:
        return {"train": list(pairs)}
    made: dict[str, list[_Pair]] = {}
    for split, pair in zip(splits, pairs, strict=True):
        assert split is not None
        made.setdefault(split, []).append(pair)
    return made


def _class_names(folder: Path, notes: Notes) -> tuple[str, ...]:
    """Returns the names in `CLASSES`; none where there is no such file.

    Raises:
      DataError: it can't be read, names fewer than two classes, or one twice or not at all.
    """
    path = folder / CLASSES
    if not path.is_file():
        return ()
    try:
        names = tuple(line.strip() for line in read_text(path, notes).rstrip().split("\n"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read as text in UTF-8: {error}.") from error
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if len(names) < 2 or twice or "" in names:
        found = f"{twice[0]!r} twice" if twice else f"{len(names)} lines, of which one is empty"
        found = "one line" if len(names) < 2 else found
        raise DataError(
            f"{path}: holds {found}; expected the name of each class on a line of its own, in the "
            "order of their numbers from 0 on."
        )
    return names


def _beside(folder: Path, images: Sequence[Path], fields: DataFields) -> dict[str, np.ndarray]:
    """Returns the key of each training image, where the data section splits by it."""
    if fields.split_by is None:
        return {}
    return {"split_by": np.array([path.relative_to(folder).as_posix() for path in images], object)}
