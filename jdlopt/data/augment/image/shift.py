"""Moving images by any share of their side, also between pixels."""

from __future__ import annotations

from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Images
from jdlopt.data.augment.image.affine import Affine, Fill, Interpolation, translation
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.warp import draws, warp


def _shift(key: Array, n: int, size: Size, strength: Array) -> Affine:
    down, right = draws(key, 2, n, -1.0)
    return translation(strength * size[0] * down, strength * size[1] * right)


MOVE = Move("shift", _shift, upright=True)


def shift(
    key: Key[Array, ""],
    images: Images,
    strength: Scalar,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Moves each image by a share of its side that is uniform in ±strength, an axis each."""
    return warp(key, images, [(MOVE, strength)], fill=fill, interpolation=interpolation)


SHIFT = Augmentation(
    name="shift",
    apply=shift,
    stage="geometry",
    strength="moves by up to this share of a side, also between pixels",
    high=1.0,
    first=(0.1,),
    fits=("image",),
    source=SURVEY,
    prior=0.5,
    move=MOVE,
)
