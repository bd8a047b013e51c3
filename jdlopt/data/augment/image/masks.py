"""Masks moved as their images are: the same maps, the nearest pixel, void beyond the border."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, UInt

from jdlopt.config import Scalar
from jdlopt.data.augment.image.affine import Fill
from jdlopt.data.augment.image.flip import alternating_flip
from jdlopt.data.augment.image.move import Move
from jdlopt.data.augment.image.warp import warp

Masks = Int32[Array, "n h w"]


def warp_masks(
    key: Key[Array, ""], masks: Masks, moves: Sequence[tuple[Move, Scalar]], *, fill: Fill
) -> Masks:
    """Moves each mask as `jdlopt.data.augment.image.warp.warp` moves its image, of the same key.

    Args:
      key: the images' own.
      masks: a class at each pixel; below 0 it is void.
      moves: the images' own.
      fill: what the images have beyond the border: with ``constant`` zeros the mask is void there,
        otherwise it shows what they show.
    """
    shown = (masks + 1).astype(jnp.float32)[..., None]  # so that the zeros beyond are void
    moved = warp(key, shown, moves, fill=fill, interpolation="nearest")
    return moved[..., 0].astype(jnp.int32) - 1


def flip_masks(masks: Masks, fingerprints: UInt[Array, "n"], epochs: Int[Array, "n"]) -> Masks:
    """Swaps left and right of each mask where `alternating_flip` swaps its image's."""
    shown = masks.astype(jnp.float32)[..., None]
    return alternating_flip(shown, fingerprints, epochs)[..., 0].astype(jnp.int32)
