"""Inverting the bright values of images."""

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
from jdlopt.data.augment.image.colors import solarized


def solarize(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Inverts the values from a threshold up; it is uniform in [1 - strength, 1], an image each."""
    threshold = 1 - amounts(key, images, strength)
    return unless_zero(strength, solarized(images, threshold), images)


SOLARIZE = Augmentation(
    name="solarize",
    apply=solarize,
    stage="raw",
    strength="inverts values above a threshold from 1 - this up",
    high=1.0,
    first=(0.3,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
