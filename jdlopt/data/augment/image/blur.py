"""Blurring images."""

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
from jdlopt.data.augment.image.colors import blurred


def blur(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Blurs each image with a Gaussian whose sigma is uniform in [0, strength] pixels."""
    return unless_zero(strength, blurred(images, amounts(key, images, strength)), images)


BLUR = Augmentation(
    name="blur",
    apply=blur,
    stage="raw",
    strength="blurs by a Gaussian of up to this sigma, in pixels",
    high=2.0,
    first=(0.7,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
