"""Images: a folder of files with their targets, decoded with Pillow when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdlopt.data.damage import Skipped
from jdlopt.data.dataset import Dataset, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import read_files, split_files
from jdlopt.data.image_decoding import (
    KIND,
    LEAST_DEPTH,
    Changes,
    Look,
    decode_image,
    look_at,
    opened,
    pixels_of,
)
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.errors import DataError


@dataclass(frozen=True)
class ImagePool:
    """Image files and the target of each.

    Attributes:
      paths, labels: the files and their targets.
      channels: 1 or 3.
      size: (height, width) that images are resized to.
      expected: the size that they must have then.
      changes: where what reading them changes is counted.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    channels: int
    size: tuple[int, int] | None
    expected: tuple[int, int]
    changes: Changes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        path = self.paths[index]
        image = decode_image(path, self.channels, self.size, str(path), self.changes)
        if image.shape[:2] != self.expected:
            raise DataError(
                f"{path}: is {_sides(image.shape[:2])} pixels where training images are "
                f"{_sides(self.expected)}. Set data.image_size to resize all images to one size."
            )
        return image, self.labels[index]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the decoded images at the indices, or all of them."""
        chosen = np.arange(len(self)) if indices is None else indices
        return Arrays(np.stack([self[int(i)][0] for i in chosen]), self.labels[chosen])

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets at the indices, or of all images, without opening any."""
        return self.labels if indices is None else self.labels[indices]


def open_images(folder: Path, fields: DataFields) -> Dataset:
    """Opens a folder of images: ``CLASS/*.png``, or ``train/CLASS/*.png`` and ``test/CLASS/*.png``.

    Or one with a ``labels.csv``: see `jdlopt.data.label_file.read_label_file`.

    Images are read in grey if all training and validation images are, and in colour otherwise. They
    must all have one size, or ``data.image_size`` gives the one to resize to. What reading changes
    is counted. Test images are not opened before ``read("test")``. With ``data.on_bad='skip'`` all
    training and validation images are decoded once, and those that can't be are left out.

    Raises:
      DataError: no class folders, a class without images, an unreadable image, unequal sizes.
    """
    skipped = Skipped()
    found = read_files(folder, KIND, fields, skipped)
    parts, seen = split_files(found, fields, folder, "image", load, skipped)
    size = resize_to(fields.image_size)
    changes = Changes(skipped.changed)
    (height, width), channels = survey(seen, size, changes)
    pools: dict[str, Pool] = {
        split: ImagePool(paths, found.targets[split], channels, size, (height, width), changes)
        for split, paths in found.paths.items()
    }
    return make_dataset(
        fields=fields,
        name=folder.resolve().name,
        coding=found.coding,
        inputs=InputSpec((height, width, channels), "uint8"),
        pools=pools,
        labels=lambda: found.targets["train"],
        parts=parts,
        checked=("train", "validation"),
        skipped=skipped,
        beside=found.beside,
        notes=found.notes,
        origins=found.origins(folder),
    )


def load(path: Path) -> None:
    """Decodes an image, to see whether it can be."""
    with opened(path, str(path)) as image:
        image.load()


def resize_to(image_size: Sequence[int] | None) -> tuple[int, int] | None:
    """Returns ``data.image_size`` as (height, width); one number is a square.

    Example:
      >>> resize_to((32,))
      (32, 32)
    """
    if image_size is None:
        return None
    sides = tuple(image_size)
    if len(sides) not in (1, 2) or any(side < 1 for side in sides):
        raise DataError(
            f"data.image_size: expected (height, width), both at least 1; found {sides}."
        )
    return sides[0], sides[-1]


def survey(
    paths: Sequence[Path], size: tuple[int, int] | None, changes: Changes
) -> tuple[tuple[int, int], int]:
    """Returns the size of all files, from their headers, and the channels: 1 if all are grey.

    Args:
      paths: the files.
      size: (height, width) that they are resized to.
      changes: where what reading them changes is counted.

    Raises:
      DataError: a file can't be read, or is of another size; pixels of 16 bits use too few of them.
    """
    looks: list[Look] = []
    deep: list[Path] = []
    for path in paths:
        with opened(path, str(path)) as image:
            look = look_at(image)
        looks.append(look)
        deep += [path] if look.deep else []
        if size is None and look.size != looks[0].size:
            raise DataError(
                f"{path}: is {_sides(look.size)} pixels where {paths[0]} is "
                f"{_sides(looks[0].size)}. Set data.image_size=(height, width) to resize all "
                "images to one size."
            )
    _check_depth(deep)
    channels = 1 if all(look.grey for look in looks) else 3
    for path, look in zip(paths, looks, strict=True):
        changes.add(str(path), look, channels)
    return size or looks[0].size, channels


def _check_depth(paths: Sequence[Path]) -> None:
    """Raises a `DataError` if 8 bits would keep next to nothing of these images of 16 bits."""
    largest = 0
    for path in paths:
        with opened(path, str(path)) as image:
            largest = max(largest, int(pixels_of(image).max()))
        if largest >= LEAST_DEPTH:
            return
    if paths:
        raise DataError(
            f"{paths[0]}: has 16 bits a pixel, and no value of the {len(paths):,} such images is "
            f"above {largest:,} of 65,535: 8 bits, which images are read as, would keep "
            f"{largest // 257 + 1} levels. Scale them to the whole range, or store them in an NPZ "
            "file."
        )


def _sides(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
