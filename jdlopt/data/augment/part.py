"""What the tables of augmentations are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Augmentation(NamedTuple):
    """One augmentation: a function of a batch, and how strong it may be.

    Attributes:
      apply: ``(key, inputs, strength) → inputs``; strength 0 returns the inputs to the bit.
      strength: what the strength means, and its unit, in one line.
      high: the largest strength that makes sense, or None.
    """

    apply: Callable[..., Any]
    strength: str
    high: float | None = 1.0
