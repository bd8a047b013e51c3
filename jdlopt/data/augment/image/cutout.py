"""Cutout: a square of each image is hidden."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jdlopt.config import Choice, Scalar
from jdlopt.data.augment.augmentation import Augmentation, Images

Hidden = Annotated[str, Choice(("zero", "mean"))]


def erased(
    images: Images,
    rows: Int[Array, "n"],
    columns: Int[Array, "n"],
    side: Float[Array, ""],
    *,
    cutout_fill: Hidden = "zero",
) -> Images:
    """Returns images with a square hidden, as far as it lies within them.

    Args:
      images: the images.
      rows, columns: the pixel in the middle of each square; of an even square the middle lies
        before that pixel.
      side: pixels, rounded; 0 hides nothing.
      cutout_fill: what ``cutout`` shows instead: ``zero``, or the ``mean`` of each channel of the
        image.
    """
    side = jnp.round(side).astype(jnp.int32)
    inside = []
    for axis, middle in ((1, rows), (2, columns)):
        first = (middle - side // 2)[:, None]
        place = jnp.arange(images.shape[axis])
        inside.append((place >= first) & (place < first + side))
    hidden = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
    mean = cutout_fill == "mean"
    shown = images.mean((1, 2), keepdims=True) if mean else jnp.zeros((), images.dtype)
    return jnp.where(hidden, shown, images)


def cutout(
    key: Key[Array, ""],
    images: Images,
    strength: Scalar,
    *,
    cutout_fill: Hidden = "zero",
) -> Images:
    """Hides one square of each image; its side is ``strength`` times the image's shorter one.

    Its middle is uniform over the pixels, so that near a border less is hidden. DeVries and Taylor,
    "Improved regularization of convolutional neural networks with cutout", 2017 (16 pixels of 32
    for CIFAR-10: strength 0.5).

    Args:
      key: a random key.
      images: the images.
      strength: side of the square as a share of the image's; 0 returns the images to the bit.
      cutout_fill: what ``cutout`` shows instead: ``zero``, or the ``mean`` of each channel of the
        image.
    """
    n, h, w = images.shape[:3]
    row_key, column_key = jax.random.split(key)
    rows = jax.random.randint(row_key, (n,), 0, h)
    columns = jax.random.randint(column_key, (n,), 0, w)
    return erased(images, rows, columns, jnp.asarray(strength) * min(h, w), cutout_fill=cutout_fill)


CUTOUT = Augmentation(
    name="cutout",
    apply=cutout,
    stage="raw",
    strength="hides a square of this share of the side",
    high=1.0,
    first=(0.3,),
    fits=("image",),
    source="DeVries and Taylor, Improved regularization of CNNs with cutout, 2017",
    prior=0.35,
)
