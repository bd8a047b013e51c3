"""Moving images by whole pixels, as a random crop of the padded image does."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Images
from jdlopt.data.augment.image.affine import Affine, Fill, translation
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.warp import draws, warp


def _crop(key: Array, n: int, size: Size, strength: Array) -> Affine:
    reach = jnp.round(strength * jnp.asarray(size, jnp.float32))
    # a draw just below 1 may round up to the next offset
    steps = [
        jnp.minimum(jnp.floor(draw * (2 * far + 1)), 2 * far) - far
        for draw, far in zip(draws(key, 2, n, 0.0), reach)
    ]
    return translation(*steps)


MOVE = Move("crop", _crop, whole=True)


def crop(
    key: Key[Array, ""], images: Images, strength: Scalar, *, fill: Fill = "constant"
) -> Images:
    """Moves each image by up to ``strength · side`` whole pixels an axis.

    It is a random crop of the image padded by that much: He et al., "Deep residual learning for
    image recognition", 2016, with 4 pixels of 32 (strength 0.125).
    """
    return warp(key, images, [(MOVE, strength)], fill=fill)


CROP = Augmentation(
    name="crop",
    apply=crop,
    stage="geometry",
    strength="moves by up to this share of a side, in whole pixels",
    high=0.5,
    first=(0.1,),
    fits=("image",),
    source=SURVEY,
    prior=0.5,
    move=MOVE,
)
