"""Shearing images along their rows."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Images
from jdlopt.data.augment.image.affine import Affine, Fill, Interpolation, shearing
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.warp import draws, warp


def _shear(key: Array, n: int, size: Size, strength: Array) -> Affine:
    slope = jnp.tan(jnp.deg2rad(strength * draws(key, 1, n, -1.0)[0]))
    return shearing(slope, jnp.zeros(n))


MOVE = Move("shear", _shear)


def shear(
    key: Key[Array, ""],
    images: Images,
    strength: Scalar,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Shears each image along its rows by an angle that is uniform in ±strength degrees."""
    return warp(key, images, [(MOVE, strength)], fill=fill, interpolation=interpolation)


SHEAR = Augmentation(
    name="shear",
    apply=shear,
    stage="geometry",
    strength="shears by up to this many degrees",
    high=60.0,
    first=(10.0,),
    fits=("image",),
    source=SURVEY,
    prior=0.2,
    move=MOVE,
)
