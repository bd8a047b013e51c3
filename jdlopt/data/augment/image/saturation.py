"""Changing how colourful images are."""

from __future__ import annotations

from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import (
    SURVEY,
    Augmentation,
    Images,
    Inputs,
    unless_zero,
)
from jdlopt.data.augment.draws import factors
from jdlopt.data.augment.image.colors import saturated


def saturation(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Moves each pixel's colour from or to its grey, by a factor uniform in 1 ± strength.

    Images that are not of three channels stay.
    """
    return unless_zero(strength, saturated(images, factors(key, images, strength)), images)


def _hindrance(inputs: Inputs) -> str | None:
    return "Grey images have no colours." if inputs.shape[-1] == 1 else None


SATURATION = Augmentation(
    name="saturation",
    apply=saturation,
    stage="raw",
    strength="scales colourfulness by a factor in 1 ± this",
    high=1.0,
    first=(0.2,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
    hindrance=_hindrance,
)
