"""TrivialAugment: one operation for each image, of a random magnitude."""

from __future__ import annotations

import jax
from jaxtyping import Array, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Augmentation, Images
from jdlopt.data.augment.image.policies import Limits, with_choices


def trivial_augment(key: Key[Array, ""], images: Images, strength: Scalar) -> Images:
    """Applies one operation to each image, of a magnitude that is uniform in [0, strength].

    Both are drawn for each image. Müller and Hutter, "TrivialAugment: tuning-free yet
    state-of-the-art data augmentation", 2021, with the ranges of its "wide" space at strength 1,
    but for translations, which end at the image's side.

    Args:
      key: a random key.
      images: values in [0, 1], one or three channels.
      strength: the largest magnitude, in [0, 1]; 0 returns the images to the bit.
    """
    n, h, w = images.shape[:3]
    limits = Limits(0.99, (min(32.0, h), min(32.0, w)), 135.0, 0.99, 6.0)
    choice_key, magnitude_key = jax.random.split(key)
    magnitudes = strength * jax.random.uniform(magnitude_key, (1, n), minval=-1.0)
    return with_choices(choice_key, images, strength, magnitudes, limits)


TRIVIAL_AUGMENT = Augmentation(
    name="trivial_augment",
    apply=trivial_augment,
    stage="raw",
    strength="largest magnitude of one drawn operation",
    high=1.0,
    first=(0.5,),
    fits=("byte image",),
    source="Müller and Hutter, TrivialAugment, 2021",
    prior=0.5,
    stays=False,
)
