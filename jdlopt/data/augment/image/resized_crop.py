"""Cutting a random part out of each image and resizing it to the whole."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Augmentation, Images
from jdlopt.data.augment.image.affine import Affine, Interpolation
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.warp import draws, warp


def _resized_crop(key: Array, n: int, size: Size, strength: Array) -> Affine:
    smaller, wider, *place = draws(key, 4, n, -1.0)
    side = jnp.sqrt(1 - strength * (smaller + 1) / 2)
    # uniform in the logarithm: 3/4 is as likely as 4/3
    stretch = jnp.exp(strength * wider * (np.log(4 / 3) / 2))
    shares = [jnp.minimum(side / stretch, 1.0), jnp.minimum(side * stretch, 1.0)]
    # the outermost pixels of the result lie on pixels of the image, none beyond
    down, right = (
        at * (1 - share) * ((pixels - 1) / 2) for at, share, pixels in zip(place, shares, size)
    )
    zero = jnp.zeros(n)
    return Affine(shares[0], zero, zero, shares[1], down, right)


MOVE = Move("resized_crop", _resized_crop, upright=True)


def resized_crop(
    key: Key[Array, ""],
    images: Images,
    strength: Scalar,
    *,
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Cuts a random part out of each image and resizes it to the whole.

    Its area is uniform in [1 - strength, 1] of the image's; its aspect ratio is that of the image
    times ``(4/3)^u``, u uniform in ±strength; a side is at most the image's. Szegedy et al.,
    "Going deeper with convolutions", 2015 (there an area from 0.08: strength 0.92).
    """
    return warp(key, images, [(MOVE, strength)], interpolation=interpolation)


RESIZED_CROP = Augmentation(
    name="resized_crop",
    apply=resized_crop,
    stage="geometry",
    strength="cuts away up to this share of the area",
    high=0.95,
    first=(0.3,),
    fits=("image",),
    source="Szegedy et al., Going deeper with convolutions, 2015",
    prior=0.2,
    move=MOVE,
)
