"""Examples held out by a seed, exactly as scikit-learn does it, which takes a second to import."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int


def held_out(
    size: int, fraction: float, seed: int, labels: Int[np.ndarray, " size"] | None = None
) -> Bool[np.ndarray, " size"] | None:
    """Says which examples scikit-learn's ``train_test_split`` holds out.

    Args:
      size: the number of examples.
      fraction: of them, between 0 and 1, rounded up.
      seed: its ``random_state``.
      labels: classes that all of the split's parts have their share of; None draws from all.

    Returns:
      The examples held out; None where it would refuse, and say why.

    Example:
      >>> np.flatnonzero(held_out(10, 0.25, seed=0)).tolist()
      [2, 4, 8]
    """
    draw = np.random.RandomState(seed)
    count = math.ceil(fraction * size)
    held = np.zeros(size, bool)
    if not 0 < count < size:
        return None
    if labels is None:
        held[draw.permutation(size)[:count]] = True
        return held
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2 or min(count, size - count) < len(counts):
        return None
    kept = _shares(counts, size - count, draw)
    _shares(counts - kept, count, draw)  # all that are left, but it may draw
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
    for own, first in zip(members, kept, strict=True):
        held[own[draw.permutation(len(own))[first:]]] = True
    return held


def _shares(
    counts: Int[np.ndarray, " classes"], total: int, draw: np.random.RandomState
) -> Int[np.ndarray, " classes"]:
    """Deals a total to classes by their sizes; what rounding leaves to the largest rests."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    rest, left = exact - shares, int(total - shares.sum())
    for value in np.unique(rest)[::-1]:
        if left <= 0:
            break
        (equal,) = np.nonzero(rest == value)
        chosen = draw.choice(equal, size=min(len(equal), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    return shares.astype(np.int64)
