"""Affine maps of a batch of images, one an example: made and composed."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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


def places(
    maps: Affine, height: int, width: int
) -> tuple[Float[Array, "n height width"], Float[Array, "n height width"]]:
    """Returns the row and the column of the image that each pixel of the result shows."""
    y, x = _centred(height)[:, None], _centred(width)
    each = Affine(*(field[:, None, None] for field in maps))
    rows = each.yy * y + each.yx * x + each.y0 + (height - 1) / 2
    columns = each.xy * y + each.xx * x + each.x0 + (width - 1) / 2
    return rows, columns


def upright_places(
    maps: Affine, height: int, width: int
) -> tuple[Float[Array, "n height"], Float[Array, "n width"]]:
    """Returns the same of maps that neither turn nor shear: a row shows one row, wherever in it."""
    rows = maps.yy[:, None] * _centred(height) + maps.y0[:, None] + (height - 1) / 2
    columns = maps.xx[:, None] * _centred(width) + maps.x0[:, None] + (width - 1) / 2
    return rows, columns


def _centred(size: int) -> Float[Array, " size"]:
    # float32 whatever the images' precision: a place among 1,000 pixels needs its bits
    return jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
