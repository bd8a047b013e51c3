"""The colours in which masks are shown, and masks as images with them as their palette."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from jdlopt.data.mask_coder import VOID

if TYPE_CHECKING:
    from PIL import Image

_BITS = 8


def palette() -> UInt8[np.ndarray, "256 3"]:
    """Returns a colour for each class number: those of the PASCAL VOC masks, black for class 0.

    Bits of the number, three by three from the lowest, are the highest bits of red, green and blue.

    Example:
      >>> palette()[:4].tolist()
      [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    numbers = np.arange(1 << _BITS)
    colours = np.zeros((len(numbers), 3), np.uint8)
    for place in range(_BITS):
        channel, bit = place % 3, _BITS - 1 - place // 3
        colours[:, channel] |= (((numbers >> place) & 1) << bit).astype(np.uint8)
    return colours


def coloured(mask: Int[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a mask in colour: void in near-white, of more classes than colours these again."""
    return palette()[np.where(mask < 0, VOID, mask % VOID)]


def as_image(mask: Int[np.ndarray, "height width"], classes: int) -> Image.Image:
    """Returns a mask as `jdlopt.data.mask_files.read_mask` reads it: its values are class numbers.

    Args:
      mask: below 0 it is void.
      classes: how many there are: with more than a palette has, the image is grey of 16 bits.
    """
    from PIL import Image

    values = np.where(mask < 0, VOID, mask)
    if classes > VOID:
        return Image.fromarray(values.astype(np.uint16))
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(palette().ravel().tolist())
    return image
