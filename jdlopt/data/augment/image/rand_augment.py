"""RandAugment: several operations for each image, all of one magnitude."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jdlopt.config import Count, Scalar
from jdlopt.data.augment.augmentation import Augmentation, Images
from jdlopt.data.augment.image.policies import Limits, with_choices


def rand_augment(
    key: Key[Array, ""], images: Images, strength: Scalar, *, operations: Count = 2
) -> Images:
    """Applies operations to each image that are drawn for it, all of one magnitude.

    Which they are is drawn for each image and layer, with equal probability and put back, and so is
    the direction of those that have two. Cubuk, Zoph, Shlens and Le, "RandAugment: practical
    automated data augmentation with a reduced search space", 2020, with torchvision's ranges;
    in difference to them the geometric operations of an image come first and ``equalize`` second,
    so that pixels are resampled once (`jdlopt.data.augment.image.policies.applied`).
    ``autocontrast`` and ``equalize`` have no magnitude: they act in full at any strength above 0.

    Args:
      key: a random key.
      images: values in [0, 1], one or three channels.
      strength: the magnitude, in [0, 1] (9 of 30 in the paper is 0.3); 0 returns the images to the
        bit.
      operations: how many operations ``rand_augment`` applies to an image.
    """
    n, h, w = images.shape[:3]
    limits = Limits(0.3, (150 / 331 * h, 150 / 331 * w), 30.0, 0.9, 4.0)
    choice_key, sign_key = jax.random.split(key)
    signs = jax.random.rademacher(sign_key, (operations, n), dtype=jnp.float32)
    return with_choices(choice_key, images, strength, strength * signs, limits)


RAND_AUGMENT = Augmentation(
    name="rand_augment",
    apply=rand_augment,
    stage="raw",
    strength="magnitude of operations drawn for each image",
    high=1.0,
    first=(0.3,),
    fits=("byte image",),
    source="Cubuk et al., RandAugment, 2020",
    prior=0.5,
    stays=False,
)
