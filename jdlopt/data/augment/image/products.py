"""Images as affine maps show them, as products of matrices.

A TPU reads single pixels one after the other, and multiplies matrices at its full speed. What a
pixel of the result shows is a mean of two rows of the image, and of two columns: each is a row of a
matrix of shares, most of them 0. The numbers are those of reading pixels, but for the order of
three sums.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float, Int

from jdlopt.data.augment.image.affine import (
    Affine,
    Fill,
    Interpolation,
    moves_nothing,
    places,
    upright_places,
)

MOST_PIXELS = 64 * 64
"""Up to so many pixels, an image that is turned or sheared is a product too: the products grow as
the square of the pixels, reading them grows as the pixels."""

Pair = tuple[tuple[Int[Array, "..."], Float[Array, "..."]], ...]
"""The pixels along an axis that a place lies between, each with its share; one or two."""


def resampled(
    images: Float[Array, "n h w c"],
    maps: Affine,
    *,
    fill: Fill,
    interpolation: Interpolation,
    upright: bool,
) -> Float[Array, "n h w c"]:
    """Returns what `jdlopt.data.augment.image.resample.resampled` does; takes the same arguments.

    An image whose map is the identity stays to the bit.
    """
    height, width = images.shape[1:3]
    find = upright_places if upright else places
    rows, columns = find(maps, height, width)
    down = _neighbours(rows, height, fill, interpolation)
    right = _neighbours(columns, width, fill, interpolation)
    if upright:
        move = _by_rows_and_columns
    else:
        move = _by_pixels if height * width <= MOST_PIXELS else _by_patches
    moved = move(images.astype(jnp.float32), down, right).astype(images.dtype)
    return jnp.where(moves_nothing(maps)[:, None, None, None], images, moved)


_product = partial(jnp.einsum, precision=Precision.HIGHEST)  # float32, whatever a TPU's default


def _by_rows_and_columns(images: Float[Array, "n h w c"], down: Pair, right: Pair) -> Array:
    """Where a row shows one row, and a column one column: a product for each axis."""
    n, h, w, c = images.shape
    rows = _product("nir,nrk->nik", _shares(down, h), images.reshape(n, h, w * c))
    return _product("njs,nisc->nijc", _shares(right, w), rows.reshape(n, h, w, c))


def _by_pixels(images: Float[Array, "n h w c"], down: Pair, right: Pair) -> Array:
    """Each pixel's mean over rows as a product, and then the mean of that over columns."""
    n, h, w, c = images.shape
    beside = images.swapaxes(2, 3).reshape(n, h, c * w)  # columns last: c is no width for a TPU
    shares = _shares(down, h).reshape(n, h * w, h)
    rows = _product("npr,nrk->npk", shares, beside).reshape(n, h * w, c, w)
    shares = _shares(right, w).reshape(n, h * w, 1, w)
    return (rows * shares).sum(-1).reshape(n, h, w, c)


def _by_patches(images: Float[Array, "n h w c"], down: Pair, right: Pair) -> Array:
    """The two by two pixels around each place, which lie side by side, read in one go."""
    n, h, w, c = images.shape
    below = jnp.roll(images, -1, 1)
    four = [images, jnp.roll(images, -1, 2), below, jnp.roll(below, -1, 2)]
    row, vertical = _lowest(down, h)
    column, horizontal = _lowest(right, w)
    found = jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(
        jnp.concatenate(four, -1).reshape(n, h * w, 4 * c), row * w + column
    )
    shares = [one * other for one in vertical for other in horizontal]
    parts = (found[..., index * c : (index + 1) * c] for index in range(4))
    return sum((share[..., None] * part for share, part in zip(shares, parts)), jnp.zeros(()))


def _neighbours(places: Array, size: int, fill: Fill, interpolation: Interpolation) -> Pair:
    """The pixels that places lie between; beyond the border those of the fill, or none."""
    if interpolation == "nearest":
        found: Pair = ((whole(places), jnp.ones_like(places)),)
    else:
        before = jnp.floor(places)
        share = places - before
        found = (whole(before), 1 - share), (whole(before) + 1, share)
    if fill == "reflect":
        return tuple((reflected(at, size), share) for at, share in found)
    if fill == "edge":
        return tuple((jnp.clip(at, 0, size - 1), share) for at, share in found)
    return found


def _shares(pair: Pair, size: int) -> Float[Array, "... size"]:
    """The share of every pixel along an axis; one beyond the border is none of them."""
    pixels = jnp.arange(size)
    return sum(
        (jnp.where(at[..., None] == pixels, share[..., None], 0.0) for at, share in pair),
        jnp.zeros(()),
    )


def _lowest(pair: Pair, size: int) -> tuple[Int[Array, "..."], list[Float[Array, "..."]]]:
    """The first of two pixels beside each other that hold a pair, and the shares of the two."""
    low = pair[0][0] if len(pair) == 1 else jnp.minimum(pair[0][0], pair[1][0])
    low = jnp.clip(low, 0, max(size - 2, 0))
    shares = [
        sum((jnp.where(at == low + step, share, 0.0) for at, share in pair), jnp.zeros(()))
        for step in (0, 1)
    ]
    return low, shares


def whole(places: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Returns the pixels that places are nearest to."""
    return jnp.round(places).astype(jnp.int32)


def reflected(places: Int[Array, "*shape"], size: int) -> Int[Array, "*shape"]:
    """Returns where the mirror images around an image show its pixels from."""
    if size == 1:
        return jnp.zeros_like(places)
    places = places % (2 * size - 2)
    return jnp.minimum(places, 2 * size - 2 - places)
