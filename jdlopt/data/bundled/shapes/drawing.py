"""Circles, squares and triangles that overlap, drawn with noise: a pure function of a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

CLASSES = ("background", "circle", "square", "triangle")
SIZE = 48
"""Pixels of a side."""
RADII = (8.0, 13.0)
"""Pixels from a shape's centre to where a circle of its area ends."""
MOST_SHAPES = 3
NOISE = 0.06
"""The standard deviation of the noise on each channel, of values from 0 to 1."""
APART = 0.35
"""How far the colours of an image are from each other, if that can be had."""

Image = UInt8[np.ndarray, "size size 3"]
Mask = UInt8[np.ndarray, "size size"]


class Drawn(NamedTuple):
    """Images and the class of each of their pixels."""

    images: UInt8[np.ndarray, "n size size 3"]
    masks: UInt8[np.ndarray, "n size size"]


def draw(seed: int, count: int, size: int = SIZE) -> Drawn:
    """Draws images of shapes: an example is a function of the seed and its number.

    An image has one to three shapes, each at a place, of a size, an angle and a colour of its own;
    a later one hides what lies below it. Colours tell nothing of classes. Light falls unevenly, and
    each value has noise.

    Example:
      >>> drawn = draw(seed=0, count=8)
      >>> drawn.images.shape, sorted(set(drawn.masks.ravel().tolist()))
      ((8, 48, 48, 3), [0, 1, 2, 3])
    """
    made = [_one(np.random.default_rng((seed, number)), size) for number in range(count)]
    return Drawn(np.stack([image for image, _ in made]), np.stack([mask for _, mask in made]))


def _one(rng: np.random.Generator, size: int) -> tuple[Image, Mask]:
    colours = [rng.random(3)]
    image = np.broadcast_to(colours[0], (size, size, 3)).copy()
    mask = np.zeros((size, size), np.uint8)
    scale = size / SIZE
    for _ in range(rng.integers(1, MOST_SHAPES + 1)):
        kind = int(rng.integers(1, len(CLASSES)))
        radius = rng.uniform(*RADII) * scale
        centre = rng.uniform(0.15 * size, 0.85 * size, 2)
        inside = _inside(kind, centre, radius, rng.uniform(0, 2 * np.pi), size)
        colours.append(_another(rng, colours))
        image[inside], mask[inside] = colours[-1], kind
    towards = rng.normal(0, 1, 2)
    towards /= np.linalg.norm(towards)
    places = (np.indices((size, size)) / (size - 1) - 0.5).transpose(1, 2, 0)
    light = 1 + 0.3 * (places @ towards)
    image = image * light[..., None] + rng.normal(0, NOISE, image.shape)
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), mask


def _another(
    rng: np.random.Generator, colours: list[Float[np.ndarray, "3"]]
) -> Float[np.ndarray, "3"]:
    """Draws a colour that is far from others, or the furthest of 20."""
    drawn = rng.random((20, 3))
    nearest = np.linalg.norm(drawn[:, None] - np.stack(colours), axis=-1).min(axis=1)
    far = nearest >= APART
    return drawn[int(np.argmax(far)) if far.any() else int(np.argmax(nearest))]


def _inside(
    kind: int, centre: Float[np.ndarray, "2"], radius: float, angle: float, size: int
) -> Bool[np.ndarray, "size size"]:
    """Says which pixels lie in a shape, whose area is that of a circle of this radius."""
    rows, columns = np.indices((size, size)) - centre[:, None, None]
    if CLASSES[kind] == "circle":
        return rows**2 + columns**2 <= radius**2
    sides = {"square": 4, "triangle": 3}[CLASSES[kind]]
    # of a regular polygon: the distance of its sides from the centre that gives this area
    reach = radius * np.sqrt(np.pi / (sides * np.tan(np.pi / sides)))
    turns = angle + 2 * np.pi * np.arange(sides) / sides
    along = rows[..., None] * np.cos(turns) + columns[..., None] * np.sin(turns)
    return np.asarray((along <= reach).all(axis=-1))
