"""Adding Gaussian noise to images."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import (
    SURVEY,
    Augmentation,
    Images,
    unless_zero,
)
from jdlopt.data.augment.draws import normals


def noise(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Adds Gaussian noise of standard deviation ``strength``, and clips to [0, 1]."""
    changed = jnp.clip(images + strength * normals(key, images.shape), 0, 1)
    return unless_zero(strength, changed, images)


NOISE = Augmentation(
    name="noise",
    apply=noise,
    stage="raw",
    strength="adds Gaussian noise of this standard deviation",
    high=1.0,
    first=(0.05,),
    fits=("byte image",),
    source=SURVEY,
    prior=0.2,
)
