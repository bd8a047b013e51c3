"""Geometric augmentation: all moves of a batch are composed into one map, and resampled once."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from jdlopt.data.augment.affine import (
    Affine,
    Fill,
    Interpolation,
    compose,
    copied,
    identity,
    resampled,
    rotation,
    scaling,
    shearing,
    translation,
)
from jdlopt.data.augment.part import Augmentation
from jdlopt.errors import ConfigError, listing, nearest

FILLS: tuple[str, ...] = typing.get_args(Fill)
INTERPOLATIONS: tuple[str, ...] = typing.get_args(Interpolation)

Images = Float[Array, "n h w c"]
Strength = float | Float[Array, ""]
Size = tuple[int, int]

# --- the moves: (key, n, (height, width), strength) → one random map an example -------------------


def _uniform(key: Key[Array, ""], count: int, n: int, low: float) -> Float[Array, "count n"]:
    return jax.random.uniform(key, (count, n), minval=low)


def _crop(key: Array, n: int, size: Size, strength: Array) -> Affine:
    reach = jnp.round(strength * jnp.asarray(size, jnp.float32))
    # a draw just below 1 may round up to the next offset
    steps = [
        jnp.minimum(jnp.floor(draw * (2 * far + 1)), 2 * far) - far
        for draw, far in zip(_uniform(key, 2, n, 0.0), reach)
    ]
    return translation(*steps)


def _resized_crop(key: Array, n: int, size: Size, strength: Array) -> Affine:
    smaller, wider, *place = _uniform(key, 4, n, -1.0)
    side = jnp.sqrt(1 - strength * (smaller + 1) / 2)
    # uniform in the logarithm: 3/4 is as likely as 4/3
    stretch = jnp.exp(strength * wider * (np.log(4 / 3) / 2))
    shares = [jnp.minimum(side / stretch, 1.0), jnp.minimum(side * stretch, 1.0)]
    # the outermost pixels of the result lie on pixels of the image, none beyond
    down, right = (
        at * (1 - share) * ((pixels - 1) / 2) for at, share, pixels in zip(place, shares, size)
    )
    zero = jnp.zeros(n)
    return Affine(shares[0], zero, zero, shares[1], down, right)


def _mirror(key: Array, n: int, strength: Array) -> Float[Array, "n"]:
    return jnp.where(_uniform(key, 1, n, 0.0)[0] < strength, -1.0, 1.0)


def _flip(key: Array, n: int, size: Size, strength: Array) -> Affine:
    return scaling(jnp.ones(n), _mirror(key, n, strength))


def _flip_vertical(key: Array, n: int, size: Size, strength: Array) -> Affine:
    return scaling(_mirror(key, n, strength), jnp.ones(n))


def _rotate(key: Array, n: int, size: Size, strength: Array) -> Affine:
    return rotation(strength * _uniform(key, 1, n, -1.0)[0])


def _shift(key: Array, n: int, size: Size, strength: Array) -> Affine:
    down, right = _uniform(key, 2, n, -1.0)
    return translation(strength * size[0] * down, strength * size[1] * right)


def _zoom(key: Array, n: int, size: Size, strength: Array) -> Affine:
    factor = 1 + strength * _uniform(key, 1, n, -1.0)[0]
    return scaling(factor, factor)


def _shear(key: Array, n: int, size: Size, strength: Array) -> Affine:
    slope = jnp.tan(jnp.deg2rad(strength * _uniform(key, 1, n, -1.0)[0]))
    return shearing(slope, jnp.zeros(n))


MOVES: dict[str, Callable[[Array, int, Size, Array], Affine]] = {
    "crop": _crop,
    "resized_crop": _resized_crop,
    "flip": _flip,
    "flip_vertical": _flip_vertical,
    "rotate": _rotate,
    "shift": _shift,
    "zoom": _zoom,
    "shear": _shear,
}
"""The moves, in the order in which `warp` makes them."""

WHOLE = frozenset({"crop", "flip", "flip_vertical"})
"""Moves by whole pixels: they copy pixels and need no interpolation."""


def drawn(key: Key[Array, ""], n: int, size: Size, strengths: Mapping[str, Strength]) -> Affine:
    """Returns one random map an example, of the named moves one after the other.

    A move draws the same numbers whichever others are there.

    Raises:
      ConfigError: no move has one of the names.
    """
    for name in strengths:
        if name not in MOVES:
            raise ConfigError(
                f"{name!r} is no geometric augmentation.{nearest(name, MOVES)} "
                f"Known: {listing(MOVES)}."
            )
    maps = identity(n)
    for index, (name, move) in enumerate(MOVES.items()):
        if name in strengths:
            strength = jnp.asarray(strengths[name], jnp.float32)
            maps = compose(maps, move(jax.random.fold_in(key, index), n, size, strength))
    return maps


def warp(
    key: Key[Array, ""],
    images: Images,
    strengths: Mapping[str, Strength],
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Moves each image at random, by all the named moves at once.

    The moves are composed into one affine map an image, in the order of `MOVES`, and the image is
    resampled once: pixels are interpolated once however many moves there are, and what one move
    takes out of the picture another can bring back. With `WHOLE` moves alone pixels are copied.

    Args:
      key: a random key.
      images: any number of channels.
      strengths: the strength of each move, by its name.
      fill: ``constant`` zeros, ``reflect`` or ``edge`` beyond the border.
      interpolation: ``bilinear`` or ``nearest``.

    Returns:
      The moved images; with all strengths 0 the images to the bit.

    Raises:
      ConfigError: no move has one of the names.

    Example:
      >>> images = jnp.arange(6.0).reshape(1, 2, 3, 1)
      >>> print(warp(jax.random.key(0), images, {"flip": 1.0, "rotate": 0.0})[0, :, :, 0])
      [[2. 1. 0.]
       [5. 4. 3.]]
    """
    maps = drawn(key, images.shape[0], (images.shape[1], images.shape[2]), strengths)
    if WHOLE.issuperset(strengths):
        return copied(images, maps, fill=fill)
    return resampled(images, maps, fill=fill, interpolation=interpolation)


# --- one move alone -------------------------------------------------------------------------------


def crop(
    key: Key[Array, ""], images: Images, strength: Strength, *, fill: Fill = "constant"
) -> Images:
    """Moves each image by up to ``strength · side`` whole pixels an axis.

    It is a random crop of the image padded by that much: He et al., "Deep residual learning for
    image recognition", 2016, with 4 pixels of 32 (strength 0.125).
    """
    return warp(key, images, {"crop": strength}, fill=fill)


def resized_crop(
    key: Key[Array, ""],
    images: Images,
    strength: Strength,
    *,
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Cuts a random part out of each image and resizes it to the whole.

    Its area is uniform in [1 - strength, 1] of the image's; its aspect ratio is that of the image
    times ``(4/3)^u``, u uniform in ±strength; a side is at most the image's. Szegedy et al.,
    "Going deeper with convolutions", 2015 (there an area from 0.08: strength 0.92).
    """
    return warp(key, images, {"resized_crop": strength}, interpolation=interpolation)


def flip(key: Key[Array, ""], images: Images, strength: Strength) -> Images:
    """Swaps left and right with probability ``strength``."""
    return warp(key, images, {"flip": strength})


def flip_vertical(key: Key[Array, ""], images: Images, strength: Strength) -> Images:
    """Swaps top and bottom with probability ``strength``."""
    return warp(key, images, {"flip_vertical": strength})


def rotate(
    key: Key[Array, ""],
    images: Images,
    strength: Strength,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Turns each image around its centre by an angle that is uniform in ±strength degrees."""
    return warp(key, images, {"rotate": strength}, fill=fill, interpolation=interpolation)


def shift(
    key: Key[Array, ""],
    images: Images,
    strength: Strength,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Moves each image by a share of its side that is uniform in ±strength, an axis each."""
    return warp(key, images, {"shift": strength}, fill=fill, interpolation=interpolation)


def zoom(
    key: Key[Array, ""],
    images: Images,
    strength: Strength,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Magnifies each image by a factor that is uniform in 1 ± strength; below 1 it shrinks."""
    return warp(key, images, {"zoom": strength}, fill=fill, interpolation=interpolation)


def shear(
    key: Key[Array, ""],
    images: Images,
    strength: Strength,
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Shears each image along its rows by an angle that is uniform in ±strength degrees."""
    return warp(key, images, {"shear": strength}, fill=fill, interpolation=interpolation)


GEOMETRY: dict[str, Augmentation] = {
    "crop": Augmentation(crop, "moves by up to this share of a side, in whole pixels", 0.5),
    "resized_crop": Augmentation(resized_crop, "cuts away up to this share of the area", 0.95),
    "flip": Augmentation(flip, "probability of swapping left and right"),
    "flip_vertical": Augmentation(flip_vertical, "probability of swapping top and bottom"),
    "rotate": Augmentation(rotate, "turns by up to this many degrees", 180.0),
    "shift": Augmentation(shift, "moves by up to this share of a side, also between pixels"),
    "zoom": Augmentation(zoom, "magnifies by a factor in 1 ± this", 0.9),
    "shear": Augmentation(shear, "shears by up to this many degrees", 60.0),
}
"""The geometric augmentations by name, in the order in which `warp` makes them."""


# --- flips that alternate -------------------------------------------------------------------------


def fingerprints(images: Images) -> UInt[Array, "n"]:
    """Returns a number for each image that its pixels decide, the same wherever it is met.

    Its bits are those of a sum of the pixels' own, each times an odd number of its place, mixed
    as MurmurHash3 ends (Appleby, 2011): equal images share it, others differ by chance.
    """
    bits = lax.bitcast_convert_type(images.astype(jnp.float32), jnp.uint32)
    bits = bits.reshape(images.shape[0], -1)
    place = _mixed(lax.broadcasted_iota(jnp.uint32, bits.shape, 1)) | jnp.uint32(1)
    return _mixed(jnp.sum(_mixed(bits) * place, axis=1, dtype=jnp.uint32))


def _mixed(bits: UInt[Array, "*shape"]) -> UInt[Array, "*shape"]:
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def alternating_flip(
    images: Images, fingerprints: UInt[Array, "n"], epochs: Int[Array, "n"]
) -> Images:
    """Swaps left and right of each image every other epoch, starting with about half of them.

    In any two epochs in a row a network sees both sides of every image, which random flips miss
    for half of them. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.

    Args:
      images: the images.
      fingerprints: one a training image, the same in every epoch; its last bit says whether the
        image starts flipped.
      epochs: the epoch in which each example is seen, from 0.

    Example:
      >>> images = jnp.asarray([[[[1.0], [2.0]]]])
      >>> for epoch in range(3):
      ...     print(alternating_flip(images, jnp.uint32([7]), jnp.int32([epoch])).ravel())
      [2. 1.]
      [1. 2.]
      [2. 1.]
    """
    flipped: Bool[Array, "n"] = (fingerprints.astype(jnp.int32) + epochs) % 2 == 1
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)
