"""Turning images around their centre."""

from __future__ import annotations

from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Images
from jdlopt.data.augment.image.affine import Affine, Fill, Interpolation, rotation
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.warp import draws, warp


def _rotate(key: Array, n: int, size: Size, strength: Array) -> Affine:
    return rotation(strength * draws(key, 1, n, -1.0)[0])


MOVE = Move("rotate", _rotate)


def rotate(
    key: Key[Array, ""],
    images: Images,
    strength: Scalar,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Turns each image around its centre by an angle that is uniform in ±strength degrees.

    Args:
      key: a random key.
      images: the images.
      strength: the largest angle, in degrees.
      fill: what geometric augmentations put where an image has no pixel: ``constant`` (0),
        ``reflect`` or ``edge``.
      interpolation: how pixels between pixels are read, ``bilinear`` or ``nearest``.
    """
    return warp(key, images, [(MOVE, strength)], fill=fill, interpolation=interpolation)


ROTATE = Augmentation(
    name="rotate",
    apply=rotate,
    stage="geometry",
    strength="turns by up to this many degrees",
    high=180.0,
    first=(10.0, 20.0),
    fits=("image",),
    source=SURVEY,
    prior=0.4,
    move=MOVE,
)
