"""Stratification where scikit-learn has none: of any number of labels, and by a value's bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def dealt(
    labels: Int[np.ndarray, "size labels"], shares: Sequence[float], seed: int
) -> Int[np.ndarray, " size"]:
    """Deals examples out to parts, so that each part has its share of every label.

    Iterative stratification: the label with the fewest examples left comes first, and each of its
    examples goes to the part that lacks most of this label, then to the one that lacks most
    examples. Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, 2011.

    Args:
      labels: which labels each example has, 0 and 1.
      shares: of the parts; they sum to 1.
      seed: of the order of the examples, which settles ties.

    Returns:
      The part of each example.

    Example:
      >>> labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]] * 5)
      >>> part = dealt(labels, (0.8, 0.2), seed=0)
      >>> labels[part == 1].sum(axis=0)
      array([2, 2])
    """
    size = len(labels)
    order = np.random.default_rng(seed).permutation(size)
    mine = labels[order].astype(bool)
    room = np.asarray(shares, np.float64) * size
    wanted = np.outer(shares, mine.sum(axis=0))
    part = np.full(size, -1)
    left = mine.sum(axis=0)
    while left.any():
        rarest = int(np.argmin(np.where(left > 0, left, size + 1)))
        for row in np.flatnonzero(mine[:, rarest] & (part < 0)):
            place = int(np.lexsort((-room, -wanted[:, rarest]))[0])
            part[row] = place
            wanted[place] -= mine[row]
            room[place] -= 1
        left = mine[part < 0].sum(axis=0)
    for row in np.flatnonzero(part < 0):
        place = int(np.argmax(room))
        part[row] = place
        room[place] -= 1
    given = np.empty(size, np.intp)
    given[order] = part
    return given


def binned(values: Float[np.ndarray, " size"], bins: int, least: int) -> Int[np.ndarray, " size"]:
    """Returns the quantile bin of each value, so that a regression can be split by its bins.

    Bin ``b`` of ``k`` holds what is above the ``b/k`` quantile and not above the ``(b + 1)/k``
    quantile, as in ``pandas.qcut``; quantiles that coincide make one edge.

    Args:
      values: the targets.
      bins: the most bins; fewer are made where one would hold fewer than ``least`` values.
      least: the fewest values of a bin.

    Example:
      >>> binned(np.arange(10.0), bins=5, least=2)
      array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
      >>> binned(np.arange(10.0), bins=5, least=4)
      array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    for count in range(bins, 1, -1):
        edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, count + 1)))
        labels = np.searchsorted(edges[1:-1], values, side="left")
        if np.unique(labels, return_counts=True)[1].min() >= least:
            return labels
    return np.zeros(len(values), np.intp)
