"""Augmentation policies: each image gets operations of its own, drawn from one list."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Images
from jdlopt.data.augment.image import colors
from jdlopt.data.augment.image.affine import (
    Affine,
    compose,
    identity,
    rotation,
    shearing,
    translation,
)
from jdlopt.data.augment.image.resample import resampled

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""What a policy draws from, each as likely as the others."""


class Limits(NamedTuple):
    """What a magnitude of 1 means.

    Attributes:
      shear: pixels to the side for each pixel along.
      translate: pixels, for images of a height and a width.
      rotate: degrees.
      blend: what the factors of brightness, saturation, contrast and sharpness differ from 1 by.
      posterize: bits of a byte that are cleared.
    """

    shear: float
    translate: tuple[float, float]
    rotate: float
    blend: float
    posterize: float


def applied(
    images: Images,
    operations: Int[Array, "layers n"],
    magnitudes: Float[Array, "layers n"],
    limits: Limits,
) -> Images:
    """Returns images to each of which its operations were applied.

    Nothing is computed for each operation of the list. All geometric ones of an image are composed
    into one affine map and resampled once, at first; ``equalize`` comes next, once. Of the others,
    in the order given, each is a point of one family:
    ``clip(scale · x + offset + grey · grey(x) + smooth · smoothed(x))``, then a threshold above
    which values are inverted, then a number of bits to clear.

    Args:
      images: the images.
      operations: indices into `OPERATIONS`, one a layer and image.
      magnitudes: in [-1, 1]; the sign says in which direction, for operations that have two.
      limits: what a magnitude of 1 means.
    """

    def chosen(layer: int, name: str) -> Array:
        return operations[layer] == OPERATIONS.index(name)

    maps = identity(images.shape[0])
    equalize = jnp.zeros(images.shape[0], bool)
    for layer, magnitude in enumerate(magnitudes):
        share = {name: jnp.where(chosen(layer, name), magnitude, 0.0) for name in OPERATIONS[1:6]}
        maps = compose(maps, _moves(share, limits))
        equalize |= chosen(layer, "equalize")
    images = resampled(images, maps)
    images = jnp.where(equalize[:, None, None, None], colors.equalized(images), images)
    for layer, magnitude in enumerate(magnitudes):
        share = {name: jnp.where(chosen(layer, name), magnitude, 0.0) for name in OPERATIONS[6:12]}
        images = _colored(images, share, chosen(layer, "autocontrast"), limits)
    return images


def _moves(share: dict[str, Array], limits: Limits) -> Affine:
    down, right = limits.translate
    maps = translation(down * share["translate_y"], right * share["translate_x"])
    maps = compose(maps, rotation(limits.rotate * share["rotate"]))
    return compose(maps, shearing(limits.shear * share["shear_x"], limits.shear * share["shear_y"]))


def _colored(
    images: Images, share: dict[str, Array], autocontrast: Array, limits: Limits
) -> Images:
    """One layer of the operations of colour; at most one share of an image is not 0."""

    def each(values: Array) -> Array:
        return values[:, None, None, None]

    # what each blend's factor differs from 1 by: as much of the other image is taken away
    bright, grey, mean, smooth = (
        limits.blend * each(share[name])
        for name in ("brightness", "saturation", "contrast", "sharpness")
    )
    low, scale = colors.channel_range(images)
    pixel_grey = colors.grey(images)
    scale = jnp.where(each(autocontrast), scale, 1 + bright + grey + mean + smooth)
    offset = jnp.where(each(autocontrast), low * scale, mean * colors.mean_grey(images))
    changed = scale * images - offset - grey * pixel_grey - smooth * colors.smoothed(images)
    changed = jnp.clip(changed, 0, 1)
    solar = each(jnp.abs(share["solarize"]))
    changed = jnp.where((solar > 0) & (changed >= 1 - solar), 1 - changed, changed)
    return colors.posterized(changed, limits.posterize * jnp.abs(share["posterize"]))


def with_choices(
    key: Array, images: Images, strength: Scalar, magnitudes: Array, limits: Limits
) -> Images:
    """Returns images with operations drawn for each layer and image, at the given magnitudes."""
    choices = jax.random.randint(key, magnitudes.shape, 0, len(OPERATIONS))
    changed = applied(images, choices, magnitudes, limits).astype(images.dtype)
    return jnp.where(jnp.asarray(strength) == 0, images, changed)
