"""Erasing augmentation: parts of an image are hidden."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jdlopt.data.augment.part import Augmentation

Images = Float[Array, "n h w c"]


def erased(
    images: Images,
    rows: Int[Array, "n"],
    columns: Int[Array, "n"],
    side: Float[Array, ""],
    *,
    fill: Literal["zero", "mean"] = "zero",
) -> Images:
    """Returns images with a square hidden, as far as it lies within them.

    Args:
      images: the images.
      rows, columns: the pixel in the middle of each square; of an even square the middle lies
        before that pixel.
      side: pixels, rounded; 0 hides nothing.
      fill: ``zero``, or the ``mean`` of each channel of the image.
    """
    side = jnp.round(side).astype(jnp.int32)
    inside = []
    for axis, middle in ((1, rows), (2, columns)):
        first = (middle - side // 2)[:, None]
        place = jnp.arange(images.shape[axis])
        inside.append((place >= first) & (place < first + side))
    hidden = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
    shown = images.mean((1, 2), keepdims=True) if fill == "mean" else jnp.zeros((), images.dtype)
    return jnp.where(hidden, shown, images)


def cutout(
    key: Key[Array, ""],
    images: Images,
    strength: float | Float[Array, ""],
    *,
    fill: Literal["zero", "mean"] = "zero",
) -> Images:
    """Hides one square of each image; its side is ``strength`` times the image's shorter one.

    Its middle is uniform over the pixels, so that near a border less is hidden. DeVries and Taylor,
    "Improved regularization of convolutional neural networks with cutout", 2017 (16 pixels of 32
    for CIFAR-10: strength 0.5).

    Args:
      key: a random key.
      images: the images.
      strength: side of the square as a share of the image's; 0 returns the images to the bit.
      fill: ``zero``, or the ``mean`` of each channel of the image.
    """
    n, h, w = images.shape[:3]
    row_key, column_key = jax.random.split(key)
    rows = jax.random.randint(row_key, (n,), 0, h)
    columns = jax.random.randint(column_key, (n,), 0, w)
    return erased(images, rows, columns, jnp.asarray(strength) * min(h, w), fill=fill)


ERASE: dict[str, Augmentation] = {
    "cutout": Augmentation(cutout, "hides a square of this share of the side"),
}
"""The augmentations that hide parts of an image, by name."""
