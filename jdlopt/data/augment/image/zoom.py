"""Magnifying and shrinking images."""

from __future__ import annotations

from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Images
from jdlopt.data.augment.image.affine import Affine, Fill, Interpolation, scaling
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.warp import draws, warp


def _zoom(key: Array, n: int, size: Size, strength: Array) -> Affine:
    factor = 1 + strength * draws(key, 1, n, -1.0)[0]
    return scaling(factor, factor)


MOVE = Move("zoom", _zoom, upright=True)


def zoom(
    key: Key[Array, ""],
    images: Images,
    strength: Scalar,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Magnifies each image by a factor that is uniform in 1 ± strength; below 1 it shrinks."""
    return warp(key, images, [(MOVE, strength)], fill=fill, interpolation=interpolation)


ZOOM = Augmentation(
    name="zoom",
    apply=zoom,
    stage="geometry",
    strength="magnifies by a factor in 1 ± this",
    high=0.9,
    first=(0.1,),
    fits=("image",),
    source=SURVEY,
    prior=0.35,
    move=MOVE,
)
