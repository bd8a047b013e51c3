"""Pictures of single examples, as PNG: images as they are, sequences as lines."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jdlopt.report.grid import COLOURS

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST, LARGEST = 96, 144
"""Pixels that the longer side of a picture has at least, and at most."""
FEWEST = 8
"""A sequence of fewer steps is not drawn; of fewer channels, each is a line."""


def drawer(shape: tuple[int, ...]) -> Callable[[np.ndarray], tuple[str, bool]] | None:
    """Returns how an example is drawn, as PNG in base64 and whether smoothly, or None."""
    if len(shape) == 3 and shape[-1] in (1, 3):
        return _picture
    if len(shape) == 2 and min(shape) >= FEWEST:
        return _picture
    one_line = (len(shape) == 1 and shape[0] >= 32) or (len(shape) == 2 and shape[-1] == 1)
    if one_line or (len(shape) == 2 and shape[0] >= FEWEST):
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

    lines = np.nan_to_num(np.asarray(values, np.float64))
    lines = lines.reshape(len(lines), -1).T
    low, high = lines.min(), lines.max()
    image = Image.new("RGBA", (384, 192), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    for place, line in enumerate(lines):
        x = np.linspace(12, 372, len(line))
        y = 180 - (line - low) / (high - low or 1.0) * 168
        colour = (*COLOURS[place % len(COLOURS)], 255)
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=4)
    return _encoded(image.resize((192, 96), Image.Resampling.LANCZOS)), True
