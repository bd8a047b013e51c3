"""Moving images towards full contrast."""

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
from jdlopt.data.augment.image.colors import stretched


def stretch(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Moves each image towards full contrast by an amount that is uniform in [0, strength].

    At an amount of 1 its values run from 0 to 1.
    """
    return unless_zero(strength, stretched(images, amounts(key, images, strength)), images)


STRETCH = Augmentation(
    name="stretch",
    apply=stretch,
    stage="raw",
    strength="moves towards full contrast by up to this share",
    high=1.0,
    first=(0.5,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
