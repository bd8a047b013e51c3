"""What moves images: a random affine map of each, of which several can be composed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array

from jdlopt.data.augment.image.affine import Affine

Size = tuple[int, int]


class Move(NamedTuple):
    """A random map of each image of a batch.

    Attributes:
      name: what it draws depends on its key and its name.
      maps: ``(key, n, (height, width), strength) → n maps``; at strength 0 all are the identity.
      whole: whether it moves by whole pixels, so that they are copied and need no interpolation.
      upright: whether it neither turns nor shears, so that a row shows one row.
    """

    name: str
    maps: Callable[[Array, int, Size, Array], Affine]
    whole: bool = False
    upright: bool = False
