"""Turning the hues of images."""

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
from jdlopt.data.augment.draws import amounts
from jdlopt.data.augment.image.colors import hue_shifted


def hue(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Turns each image's hue by a share of the colour circle that is uniform in ±strength.

    Images that are not of three channels stay.
    """
    turns = amounts(key, images, strength, low=-1.0)
    return unless_zero(strength, hue_shifted(images, turns), images)


def _hindrance(inputs: Inputs) -> str | None:
    return "Grey images have no colours." if inputs.shape[-1] == 1 else None


HUE = Augmentation(
    name="hue",
    apply=hue,
    stage="raw",
    strength="turns hues by up to this share of the colour circle",
    high=0.5,
    first=(0.05,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
    hindrance=_hindrance,
)
