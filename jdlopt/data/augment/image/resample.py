"""Images as affine maps show them: pixels read one by one, or as products of matrices on a TPU."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jdlopt.data.augment.image import products
from jdlopt.data.augment.image.affine import (
    Affine,
    Fill,
    Interpolation,
    moves_nothing,
    places,
    upright_places,
)
from jdlopt.data.augment.image.products import reflected, whole


def resampled(
    images: Float[Array, "n h w c"],
    maps: Affine,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
    upright: bool = False,
) -> Float[Array, "n h w c"]:
    """Returns the images as their maps show them; to the bit if all maps are identities.

    Args:
      images: the images.
      maps: one an image.
      fill: what lies beyond the border: ``constant`` zeros, the image again as its mirror image
        (``reflect``, the border's pixels not repeated), or the border's pixels (``edge``).
      interpolation: a pixel between pixels is their ``bilinear`` mean, or the ``nearest`` one.
      upright: whether no map turns or shears, which spares a TPU most of the work.
    """
    return lax.platform_dependent(
        images,
        maps,
        tpu=partial(products.resampled, fill=fill, interpolation=interpolation, upright=upright),
        default=partial(_read, fill=fill, interpolation=interpolation),
    )


def copied(
    images: Float[Array, "n h w c"], maps: Affine, *, fill: Fill = "constant"
) -> Float[Array, "n h w c"]:
    """Returns the images as maps of mirrors and whole pixels show them, which need no mean.

    It is `resampled` for such maps, to the bit and three times as fast.
    """
    return lax.platform_dependent(
        images,
        maps,
        tpu=partial(products.resampled, fill=fill, interpolation="nearest", upright=True),
        default=partial(_copied, fill=fill),
    )


def _read(
    images: Float[Array, "n h w c"], maps: Affine, *, fill: Fill, interpolation: Interpolation
) -> Float[Array, "n h w c"]:
    def moved(images: Array, maps: Affine) -> Array:
        rows, columns = places(maps, *images.shape[1:3])
        if interpolation == "nearest":
            return _shown(images, whole(rows), whole(columns), fill)
        above, left = jnp.floor(rows), jnp.floor(columns)
        down, right = rows - above, columns - left
        total = jnp.zeros((), images.dtype)
        for row, vertical in ((whole(above), 1 - down), (whole(above) + 1, down)):
            for column, horizontal in ((whole(left), 1 - right), (whole(left) + 1, right)):
                weight = vertical * horizontal
                if fill == "constant":
                    weight = jnp.where(_inside(images, row, column), weight, 0.0)
                pixels = _pixels(images, row, column, fill)
                total += weight[..., None].astype(images.dtype) * pixels
        return total

    # A branch of its own is also faster: with what comes after fused into it, XLA's CPU backend
    # doesn't vectorise the reading of pixels.
    return lax.cond(moves_nothing(maps).all(), lambda images, _: images, moved, images, maps)


def _copied(images: Float[Array, "n h w c"], maps: Affine, *, fill: Fill) -> Array:
    rows, columns = map(whole, upright_places(maps, *images.shape[1:3]))
    return _shown(images, rows[:, :, None], columns[:, None, :], fill)


def _shown(images: Array, rows: Array, columns: Array, fill: Fill) -> Float[Array, "n h w c"]:
    """Pixels of each image by their row and column, zeros beyond the border if it is constant."""
    pixels = _pixels(images, rows, columns, fill)
    if fill != "constant":
        return pixels
    return jnp.where(_inside(images, rows, columns)[..., None], pixels, 0)


def _inside(images: Array, rows: Array, columns: Array) -> Bool[Array, "n h w"]:
    h, w = images.shape[1:3]
    return (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)


def _pixels(images: Array, rows: Array, columns: Array, fill: Fill) -> Float[Array, "n h w c"]:
    """Pixels of each image by their row and column; beyond the border those of the fill."""
    n, h, w, c = images.shape
    if fill == "reflect":
        rows, columns = reflected(rows, h), reflected(columns, w)
    at = jnp.clip(rows, 0, h - 1) * w + jnp.clip(columns, 0, w - 1)
    return jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(
        images.reshape(n, h * w, c), at
    )
