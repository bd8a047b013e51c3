"""Affine maps of a batch of images, one an example: made, composed, and resampled in one pass."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdlopt.config import Choice

FILLS = ("constant", "reflect", "edge")
INTERPOLATIONS = ("bilinear", "nearest")
Fill = Annotated[str, Choice(FILLS)]
Interpolation = Annotated[str, Choice(INTERPOLATIONS)]


class Affine(NamedTuple):
    """For each example the map from a pixel of the result to the place in the image that it shows.

    Both are measured in pixels from the image's centre, ``y`` downwards:
    ``y' = yy · y + yx · x + y0`` and ``x' = xy · y + xx · x + x0``.
    """

    yy: Float[Array, "n"]
    yx: Float[Array, "n"]
    xy: Float[Array, "n"]
    xx: Float[Array, "n"]
    y0: Float[Array, "n"]
    x0: Float[Array, "n"]


def identity(n: int) -> Affine:
    """Returns n maps that move nothing."""
    zero, one = jnp.zeros(n), jnp.ones(n)
    return Affine(one, zero, zero, one, zero, zero)


def translation(down: Float[Array, "n"], right: Float[Array, "n"]) -> Affine:
    """Returns the maps that move images down and to the right, by pixels."""
    return identity(down.shape[0])._replace(y0=-down, x0=-right)


def rotation(degrees: Float[Array, "n"]) -> Affine:
    """Returns the maps that turn images counter-clockwise around their centre."""
    angle = jnp.deg2rad(degrees)
    cosine, sine, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    return Affine(yy=cosine, yx=sine, xy=-sine, xx=cosine, y0=zero, x0=zero)


def scaling(vertical: Float[Array, "n"], horizontal: Float[Array, "n"]) -> Affine:
    """Returns the maps that magnify images by a factor an axis; a negative one mirrors."""
    return identity(vertical.shape[0])._replace(yy=1 / vertical, xx=1 / horizontal)


def shearing(horizontal: Float[Array, "n"], vertical: Float[Array, "n"]) -> Affine:
    """Returns the maps that shear images along their rows, and then along their columns.

    Args:
      horizontal: pixels to the left for each pixel down from the centre.
      vertical: pixels up for each pixel to the right of the centre.
    """
    zero, one = jnp.zeros_like(horizontal), jnp.ones_like(horizontal)
    rows = Affine(one, zero, horizontal, one, zero, zero)
    return compose(rows, Affine(one, vertical, zero, one, zero, zero))


def compose(first: Affine, then: Affine) -> Affine:
    """Returns the maps of images that are moved by ``first``, and the result by ``then``."""
    return Affine(
        yy=first.yy * then.yy + first.yx * then.xy,
        yx=first.yy * then.yx + first.yx * then.xx,
        xy=first.xy * then.yy + first.xx * then.xy,
        xx=first.xy * then.yx + first.xx * then.xx,
        y0=first.yy * then.y0 + first.yx * then.x0 + first.y0,
        x0=first.xy * then.y0 + first.xx * then.x0 + first.x0,
    )


def moves_nothing(maps: Affine) -> Bool[Array, "n"]:
    """Says of each map whether it is the identity."""
    same = [field == one for field, one in zip(maps, (1.0, 0.0, 0.0, 1.0, 0.0, 0.0))]
    return jnp.stack(same).all(0)


# --- resampling -----------------------------------------------------------------------------------


def resampled(
    images: Float[Array, "n h w c"],
    maps: Affine,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "n h w c"]:
    """Returns the images as their maps show them; to the bit if all maps are identities.

    Args:
      images: the images.
      maps: one an image.
      fill: what lies beyond the border: ``constant`` zeros, the image again as its mirror image
        (``reflect``, the border's pixels not repeated), or the border's pixels (``edge``).
      interpolation: a pixel between pixels is their ``bilinear`` mean, or the ``nearest`` one.
    """
    h, w = images.shape[1:3]

    def moved(images: Array, maps: Affine) -> Array:
        # float32 whatever the images' precision: a place among 1,000 pixels needs its bits
        y = jnp.arange(h, dtype=jnp.float32)[:, None] - (h - 1) / 2
        x = jnp.arange(w, dtype=jnp.float32) - (w - 1) / 2
        each = Affine(*(field[:, None, None] for field in maps))
        rows = each.yy * y + each.yx * x + each.y0 + (h - 1) / 2
        columns = each.xy * y + each.xx * x + each.x0 + (w - 1) / 2
        if interpolation == "nearest":
            return _shown(images, _whole(rows), _whole(columns), fill)
        above, left = jnp.floor(rows), jnp.floor(columns)
        down, right = rows - above, columns - left
        total = jnp.zeros((), images.dtype)
        for row, vertical in ((_whole(above), 1 - down), (_whole(above) + 1, down)):
            for column, horizontal in ((_whole(left), 1 - right), (_whole(left) + 1, right)):
                weight = vertical * horizontal
                if fill == "constant":
                    weight = jnp.where(_inside(images, row, column), weight, 0.0)
                pixels = _pixels(images, row, column, fill)
                total += weight[..., None].astype(images.dtype) * pixels
        return total

    # A branch of its own is also faster: with what comes after fused into it, XLA's CPU backend
    # doesn't vectorise the reading of pixels.
    return jax.lax.cond(moves_nothing(maps).all(), lambda images, _: images, moved, images, maps)


def copied(
    images: Float[Array, "n h w c"], maps: Affine, *, fill: Fill = "constant"
) -> Float[Array, "n h w c"]:
    """Returns the images as maps of mirrors and whole pixels show them, which need no mean.

    It is `resampled` for such maps, to the bit and three times as fast.
    """
    h, w = images.shape[1:3]
    y = jnp.arange(h, dtype=jnp.float32) - (h - 1) / 2
    x = jnp.arange(w, dtype=jnp.float32) - (w - 1) / 2
    # where nothing turns, a result's row says which row it shows, and a column which column
    rows = _whole(maps.yy[:, None] * y + maps.y0[:, None] + (h - 1) / 2)
    columns = _whole(maps.xx[:, None] * x + maps.x0[:, None] + (w - 1) / 2)
    return _shown(images, rows[:, :, None], columns[:, None, :], fill)


def _whole(places: Array) -> Int[Array, "*shape"]:
    return jnp.round(places).astype(jnp.int32)


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
        rows, columns = _reflected(rows, h), _reflected(columns, w)
    places = jnp.clip(rows, 0, h - 1) * w + jnp.clip(columns, 0, w - 1)
    return jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(
        images.reshape(n, h * w, c), places
    )


def _reflected(places: Int[Array, "*shape"], size: int) -> Int[Array, "*shape"]:
    """Where the mirror images around an image show its pixels from."""
    if size == 1:
        return jnp.zeros_like(places)
    places = places % (2 * size - 2)
    return jnp.minimum(places, 2 * size - 2 - places)
