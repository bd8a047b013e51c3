"""Geometric augmentation: all moves of a batch are composed into one map, and resampled once."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Images
from jdlopt.data.augment.image.affine import (
    Affine,
    Fill,
    Interpolation,
    compose,
    identity,
)
from jdlopt.data.augment.image.move import Move, Size
from jdlopt.data.augment.image.resample import copied, resampled


def draws(key: Key[Array, ""], count: int, n: int, low: float) -> Float[Array, "count n"]:
    """Draws numbers that are uniform in [low, 1)."""
    return jax.random.uniform(key, (count, n), minval=low)


def drawn(key: Key[Array, ""], n: int, size: Size, moves: Sequence[tuple[Move, Scalar]]) -> Affine:
    """Returns one random map an example, of some moves one after the other.

    A move draws the same numbers whichever others are there.
    """
    maps = identity(n)
    for move, strength in moves:
        own_key = jax.random.fold_in(key, zlib.crc32(move.name.encode()))
        maps = compose(maps, move.maps(own_key, n, size, jnp.asarray(strength, jnp.float32)))
    return maps


def warp(
    key: Key[Array, ""],
    images: Images,
    moves: Sequence[tuple[Move, Scalar]],
    *,
    fill: Fill = "constant",
    interpolation: Interpolation = "bilinear",
) -> Images:
    """Moves each image at random, by all moves at once.

    The moves are composed into one affine map an image, in their order, and the image is resampled
    once: pixels are interpolated once however many moves there are, and what one move takes out of
    the picture another can bring back. With moves by whole pixels alone, pixels are copied.

    Args:
      key: a random key.
      images: any number of channels.
      moves: each with its strength.
      fill: ``constant`` zeros, ``reflect`` or ``edge`` beyond the border.
      interpolation: ``bilinear`` or ``nearest``.

    Returns:
      The moved images; with all strengths 0 the images to the bit.
    """
    maps = drawn(key, images.shape[0], (images.shape[1], images.shape[2]), moves)
    if all(move.whole for move, _ in moves):
        return copied(images, maps, fill=fill)
    upright = all(move.whole or move.upright for move, _ in moves)
    return resampled(images, maps, fill=fill, interpolation=interpolation, upright=upright)
