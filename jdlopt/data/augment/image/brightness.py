"""Changing how bright images are."""

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
from jdlopt.data.augment.image.colors import brightened


def brightness(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Multiplies each image by a factor that is uniform in 1 ± strength, and clips to [0, 1].

    The factor is at least 0. Brightness, contrast and saturation are defined as in torchvision's
    ``ColorJitter``.
    """
    return unless_zero(strength, brightened(images, factors(key, images, strength)), images)


BRIGHTNESS = Augmentation(
    name="brightness",
    apply=brightness,
    stage="raw",
    strength="multiplies by a factor in 1 ± this",
    high=1.0,
    first=(0.2,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
