"""Clearing the lowest bits of images."""

from __future__ import annotations

from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import (
    SURVEY,
    Augmentation,
    Images,
    unless_zero,
)
from jdlopt.data.augment.draws import amounts
from jdlopt.data.augment.image.colors import posterized


def posterize(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Clears the lowest bits of each image's bytes: a number uniform in [0, strength], rounded."""
    return unless_zero(strength, posterized(images, amounts(key, images, strength)), images)


POSTERIZE = Augmentation(
    name="posterize",
    apply=posterize,
    stage="raw",
    strength="clears up to this many of a byte's 8 bits",
    high=7.0,
    first=(3.0,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
