"""Metrics of pairs over a whole split: what is nearest to each example's first and second."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jdlopt.metrics.scores import Split
from jdlopt.tasks.pair_outputs import ROWS, nearest, parted, unit

AT = (1, 5, 10)
"""Recall is measured among so many nearest."""


class Ranks(NamedTuple):
    """How many wrong ones are as near as the nearest right one, of each example.

    Attributes:
      second: among the second embeddings, by the example's first.
      first: among the first ones, by its second.
    """

    second: Int[np.ndarray, " n"]
    first: Int[np.ndarray, " n"]


def ranks_of(
    queries: Float[np.ndarray, "n features"],
    answers: Float[np.ndarray, "m features"],
    own: Int[np.ndarray, " n"],
    others: Int[np.ndarray, " m"],
) -> Int[np.ndarray, " n"]:
    """Returns how many answers of other numbers are as near to each query as one of its own.

    Ties, and what is no number, count against it.

    Args:
      queries, answers: of length 1.
      own: each query's number.
      others: each answer's.

    Example:
      >>> points = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
      >>> ranks_of(points, points[::-1], np.arange(3), np.arange(3)).tolist()
      [2, 0, 2]
    """
    found = np.empty(len(queries), np.int64)
    for first in range(0, len(queries), ROWS):
        rows = slice(first, first + ROWS)
        similar = queries[rows] @ answers.T
        right = own[rows, None] == others[None, :]
        best = np.where(right, similar, -np.inf).max(axis=1, keepdims=True)
        found[rows] = (~(similar < best) & ~right).sum(axis=1)
    return found


def _ranks(split: Split) -> Ranks:
    """The ranks of a split, computed once for all metrics of it."""
    leaves = split.leaves
    if "ranks" not in leaves:
        pairs, same = parted(leaves["embeddings"]), leaves["together"]
        first, second = unit(pairs.first), unit(pairs.second)
        leaves["ranks"] = Ranks(
            ranks_of(first, second, same, same), ranks_of(second, first, same, same)
        )
    found = leaves["ranks"]
    assert isinstance(found, Ranks)
    return found


def recall(k: int, of_first: bool = False) -> Callable[[Split], float]:
    """Returns the share of examples that have a right one among the ``k`` nearest.

    Args:
      k: how many.
      of_first: whether firsts are looked for by the seconds, rather than seconds by the firsts.
    """

    def compute(split: Split) -> float:
        found = _ranks(split)
        return float(np.mean((found.first if of_first else found.second) < k))

    return compute


def mean_recall(split: Split) -> float:
    """Returns the mean of recall at `AT`, both ways."""
    return float(np.mean([np.mean(ranks < k) for ranks in _ranks(split) for k in AT]))


def zero_shot_accuracy(split: Split) -> float:
    """Returns the share of firsts whose nearest class is their own.

    A class is what belongs together, and lies at the mean of its second embeddings, each of length
    1: where these are of the class's name, or of texts with the name in them, this is the zero-shot
    classification of Radford et al., 2021.
    """
    pairs, same = parted(split.leaves["embeddings"]), split.leaves["together"]
    classes, numbers = np.unique(same, return_inverse=True)
    second = unit(pairs.second)
    centres = np.zeros((len(classes), second.shape[1]))
    np.add.at(centres, numbers, second)
    return float(np.mean(nearest(unit(pairs.first), unit(centres)) == numbers))
