"""Changing the contrast of images."""

from __future__ import annotations

from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import (
    SURVEY,
    Augmentation,
    Images,
    unless_zero,
)
from jdlopt.data.augment.draws import factors
from jdlopt.data.augment.image.colors import contrasted


def contrast(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Moves each image's values from or to its mean grey, by a factor uniform in 1 ± strength."""
    return unless_zero(strength, contrasted(images, factors(key, images, strength)), images)


CONTRAST = Augmentation(
    name="contrast",
    apply=contrast,
    stage="raw",
    strength="scales contrast by a factor in 1 ± this",
    high=1.0,
    first=(0.2,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
