"""Splits by a key: a hash of it alone says where an example goes, whatever others there are."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from jdlopt.errors import DataError

BY_PATH = "path"
"""The key of a folder's files: their path in it."""


def place_of(key: str, seed: int, split: str) -> float:
    """Returns a key's place in [0, 1): the same on every machine, in every version of Python.

    It is the first 8 bytes of the SHA-256 of ``seed/split/key`` in UTF-8, as a big-endian number,
    by 2⁶⁴. The key is in Unicode's form NFC.

    Args:
      key: the key.
      seed: ``data.split_seed``.
      split: ``test`` or ``validation``, whose places have nothing to do with one another.

    Example:
      >>> round(place_of("patient 7", 0, "test"), 6)
      0.962213
    """
    text = f"{seed}/{split}/{unicodedata.normalize('NFC', key)}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def places(keys: Sequence[str], seed: int, split: str) -> Float64[np.ndarray, " keys"]:
    """Returns the place of each key; see `place_of`."""
    found = {key: place_of(key, seed, split) for key in dict.fromkeys(keys)}
    return np.array([found[key] for key in keys], np.float64)


def held_out(
    keys: Sequence[str], fraction: float, seed: int, split: str, where: str
) -> Bool[np.ndarray, " keys"]:
    """Returns which keys lie below a fraction, and so in a split.

    A larger fraction takes more keys, and all that a smaller one took.

    Args:
      keys: of the examples that may be in it.
      fraction: the split's share of the keys.
      seed, split: as in `place_of`.
      where: names the source, for messages.

    Raises:
      DataError: all keys or none do.

    Example:
      >>> keys = [f"{row}" for row in range(1000)]
      >>> few, many = (held_out(keys, share, 0, "test", "data") for share in (0.1, 0.3))
      >>> int(few.sum()), int(many.sum()), bool(many[few].all())
      (89, 282, True)
    """
    held = places(keys, seed, split) < fraction
    if held.any() and not held.all():
        return held
    count = len(set(keys))
    much = "all" if held.any() else "none"
    raise DataError(
        f"{where}: data.split_by: a hash says which split a key is in, and puts {much} of {count} "
        f"keys into the {split} split, for data.{split}_fraction={fraction:g}. Use more keys, "
        "another fraction or another data.split_seed."
    )


def fold_of(
    keys: Sequence[str], folds: int, which: int, seed: int, where: str
) -> Bool[np.ndarray, " keys"]:
    """Returns which keys lie in one of equally wide folds.

    Raises:
      DataError: all keys or none do.
    """
    held = (places(keys, seed, "validation") * folds).astype(np.int64) == which
    if held.any() and not held.all():
        return held
    raise DataError(
        f"{where}: data.split_by: a hash says which fold a key is in, and fold {which} of {folds} "
        f"has {'all' if held.any() else 'none'} of {len(set(keys))} keys. Use more keys or fewer "
        "folds."
    )
