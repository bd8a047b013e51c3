"""Images: a folder of files with their targets, decoded with Pillow when one is asked for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jdlopt.data.damage import Skipped, Unreadable
from jdlopt.data.dataset import Dataset, make_dataset
from jdlopt.data.fields import DataFields
from jdlopt.data.folders import read_files, split_files
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.spec import InputSpec
from jdlopt.errors import DataError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
GREY_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "RGBA", "P", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa")


@dataclass(frozen=True)
class ImagePool:
    """Image files and the target of each.

    Attributes:
      paths, labels: the files and their targets.
      channels: 1 or 3.
      size: (height, width) that images are resized to.
      expected: the size that they must have then.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    channels: int
    size: tuple[int, int] | None
    expected: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        path = self.paths[index]
        image = decode_image(path, self.channels, self.size, str(path))
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

    Or one with a ``labels.csv``: see `jdlopt.data.folders.read_label_file`.

    Images are grey if all training images are, and RGB otherwise. They must all have one size, or
    ``data.image_size`` gives the one to resize to. Test images are not opened before
    ``read("test")``. With ``data.on_bad='skip'`` all training and validation images are decoded
    once, and those that can't be are left out.

    Raises:
      DataError: no class folders, a class without images, an unreadable image, unequal sizes.
    """
    skipped = Skipped()
    found = read_files(folder, SUFFIXES, "image", fields, skipped)
    parts, seen = split_files(found, fields, folder, "image", load, skipped)
    size = resize_to(fields.image_size)
    (height, width), channels = survey(seen, size)
    pools: dict[str, Pool] = {
        split: ImagePool(paths, found.targets[split], channels, size, (height, width))
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
    )


def load(path: Path) -> None:
    """Decodes an image, to see whether it can be."""
    with _opened(path, str(path)) as image:
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


def survey(paths: Sequence[Path], size: tuple[int, int] | None) -> tuple[tuple[int, int], int]:
    """Returns the size of all files, from their headers, and the channels: 1 if all are grey."""
    first: tuple[int, int] | None = None
    grey = True
    for path in paths:
        with _opened(path, str(path)) as image:
            shape = (image.height, image.width)
            grey = grey and image.mode in GREY_MODES
        first = first or shape
        if size is None and shape != first:
            raise DataError(
                f"{path}: is {_sides(shape)} pixels where {paths[0]} is {_sides(first)}. "
                "Set data.image_size=(height, width) to resize all images to one size."
            )
    assert first is not None
    return size or first, 1 if grey else 3


def _sides(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


@contextlib.contextmanager
def _opened(file: Path | io.BytesIO, name: str) -> Iterator[Any]:
    """Opens an image; whatever Pillow says against it becomes an `Unreadable` that names it."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise DataError(
                    f"{name}: has pixels of mode {image.mode}; expected 8 bits a channel. "
                    "Convert it, or store the images in an NPZ file."
                )
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders let all kinds through on damaged bytes
        raise Unreadable(
            f"{name}: can't be read as an image: {error}. Replace or remove it, or leave such "
            "images out with data.on_bad='skip'.",
            "unreadable image",
        ) from error


def decode_image(
    file: Path | io.BytesIO,
    channels: int,
    size: tuple[int, int] | None,
    name: str,
) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes an image as grey (1 channel) or RGB (3), resized where a size is given.

    Args:
      file: a path, or the encoded image.
      channels: 1 or 3; an alpha channel is dropped.
      size: (height, width) to resize to, with antialiasing; None keeps the image's own.
      name: names the image, for messages.

    Raises:
      DataError: the image can't be decoded, or is coloured where grey is expected.
    """
    from PIL import Image

    with _opened(file, name) as image:
        if channels == 1 and image.mode not in GREY_MODES:
            raise DataError(f"{name}: is a colour image where all training images are grey.")
        mode = "L" if channels == 1 else "RGB"
        pixels = image if image.mode == mode else image.convert(mode)
        if size is not None and (pixels.height, pixels.width) != size:
            pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        values = np.asarray(pixels)
    return values.reshape(*values.shape[:2], channels)
