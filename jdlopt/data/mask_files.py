"""Masks as image files: a class number at each pixel, grey or of a palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int32

from jdlopt.data.coding import Coding
from jdlopt.data.damage import Unreadable
from jdlopt.data.image_decoding import (
    DEEP_MODES,
    ROTATED,
    look_at,
    opened,
    pixels_of,
)
from jdlopt.data.mask_coder import MOST, encode_one, sides
from jdlopt.errors import DataError

LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats that may change values, which are then other classes."""
NUMBERED = ("1", "L", "P", "I", *DEEP_MODES)
"""Pillow's modes whose pixels are one number each; of a palette, the index."""
REASON = "mask that can't be used"
_ANY = Coding("", tuple(range(MOST)))


def read_mask(
    path: Path, image: Path, coding: Coding | None, size: tuple[int, int] | None
) -> Int32[np.ndarray, "height width"]:
    """Returns the class of each pixel of an image, `jdlopt.data.coding.PAD` where it is void.

    Args:
      path: the mask: grey, or with a palette, whose indices are taken.
      image: the image that it is of, which must have the mask's size.
      coding: which numbers are classes; None: any.
      size: (height, width) to resize to, by the nearest pixel; None keeps the mask's own.

    Raises:
      DataError: it is no mask, of another size, or holds a number that no class has.
    """
    with opened(image, str(image)) as one:
        look = look_at(one)
    if ROTATED in look.changes:
        raise _unreadable(
            f"{image}: EXIF says how it is to be turned, so that which pixel of its mask "
            f"({path.name}) is which can't be known. Save the image turned."
        )
    values = _pixels(path)
    if values.shape != look.size:
        raise _unreadable(
            f"{path}: is {sides(values.shape)} pixels where its image {image} is "
            f"{sides(look.size)}. A mask has its image's size."
        )
    if size is not None and values.shape != size:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.intp)
            for new, old in zip(size, values.shape, strict=True)
        )
        values = values[rows[:, None], columns]
    try:
        return encode_one(values, _ANY if coding is None else coding)
    except DataError as error:
        raise _unreadable(f"{path}: {error}") from error


def _pixels(path: Path) -> np.ndarray:
    """Returns a mask's numbers as they are stored."""
    with opened(path, str(path)) as image:
        if image.format in LOSSY:
            raise _unreadable(
                f"{path}: is a {image.format}, which may change values, and so classes. Save "
                "masks as PNG."
            )
        pixels = pixels_of(image)
        if image.mode == "RGB" and (pixels == pixels[..., :1]).all():
            return pixels[..., 0]
        if image.mode not in NUMBERED:
            raise _unreadable(
                f"{path}: holds colours (mode {image.mode}); a mask has a class number at each "
                "pixel: save it in grey, or with a palette, whose indices are then the classes."
            )
    return pixels.astype(np.int32)


def _unreadable(message: str) -> Unreadable:
    return Unreadable(message, REASON)
