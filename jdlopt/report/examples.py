"""Pictures of single examples, as PNG: images as they are, sequences as a line."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST, LARGEST = 96, 144
"""Pixels that the longer side of a picture has at least, and at most."""


def drawer(shape: tuple[int, ...]) -> Callable[[np.ndarray], tuple[str, bool]] | None:
    """Returns how an example is drawn, as PNG in base64 and whether smoothly, or None."""
    if len(shape) == 3 and shape[-1] in (1, 3):
        return _picture
    if len(shape) == 2 and min(shape) >= 8:
        return _picture
    if (len(shape) == 1 and shape[0] >= 32) or (len(shape) == 2 and shape[-1] == 1):
        return _sequence
    return None


def _encoded(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _picture(values: np.ndarray) -> tuple[str, bool]:
    from PIL import Image

    pixels = np.nan_to_num(np.asarray(values, np.float64))
    low, high = pixels.min(), pixels.max()  # not all pictures use the whole range of their type
    pixels = (pixels - low) / (high - low or 1.0) * 255
    pixels = pixels.astype(np.uint8)
    image = Image.fromarray(
        pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    )
    longest = max(image.size)
    if longest > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
        return _encoded(image), True
    grow = max(1, round(SMALLEST / longest))
    size = (image.width * grow, image.height * grow)
    return _encoded(image.resize(size, Image.Resampling.NEAREST)), longest > SMALLEST


def _sequence(values: np.ndarray) -> tuple[str, bool]:
    from PIL import Image, ImageDraw

    flat = np.nan_to_num(np.asarray(values, np.float64)).reshape(-1)
    low, high = flat.min(), flat.max()
    x = np.linspace(12, 372, len(flat))
    y = 180 - (flat - low) / (high - low or 1.0) * 168
    image = Image.new("RGBA", (384, 192), (0, 0, 0, 0))
    ImageDraw.Draw(image).line(list(zip(x, y)), fill=(59, 120, 194, 255), width=4)
    return _encoded(image.resize((192, 96), Image.Resampling.LANCZOS)), True
