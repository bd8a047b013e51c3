"""Sampling: which examples an epoch is made of, as a function of (seed, epoch).

An epoch has as many positions as the training split has examples. Drawn uniformly, it holds each
example once; balanced by class, each class takes the same share of it; weighted, each example takes
a share in proportion to its weight. All of it comes from Philox's raw words, a stream that numpy
promises to keep, so that an order outlives versions of numpy and needs nothing but (seed, epoch).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int32, Num

from jdlopt.errors import DataError, listing

SAMPLING = ("uniform", "balanced", "weighted")

_CLASSES, _PLACES, _DRAWS = 1, 2, 3
"""Purposes of random words: each has a stream of its own, apart from `epoch_order`'s."""


def _words(seed: int, number: int, size: int, purpose: int, part: int = 0) -> np.ndarray:
    """Returns raw 64-bit words; seed, number, purpose and part each give another stream."""
    # a stream counts in the counter's lowest word, so that the two highest tell streams apart
    return np.random.Philox(key=[seed, number], counter=[0, 0, part, purpose]).random_raw(size)


def _shuffled(items: np.ndarray, words: np.ndarray) -> np.ndarray:
    return items[np.argsort(words, kind="stable")]


def epoch_order(seed: int, epoch: int, size: int) -> Int32[np.ndarray, " size"]:
    """Returns the permutation of a split in one epoch.

    It sorts Philox's raw words, a stream that numpy promises to keep, so that the order outlives
    versions of numpy, as its ``permutation`` need not.
    """
    words = np.random.Philox(key=[seed, epoch]).random_raw(size)
    return np.argsort(words, kind="stable").astype(np.int32)


def balanced_order(
    seed: int, epoch: int, labels: Int[np.ndarray, " size"]
) -> Int32[np.ndarray, " size"]:
    """Returns the examples of one epoch in which every class has the same share.

    Of ``size`` positions each of the ``k`` classes that occur has ``⌊size / k⌋`` or one more (the
    first ``size mod k`` classes). A class fills its positions from an endless stream of its own:
    permutation after permutation of its examples, over all epochs. So a rare class repeats, but
    none of its examples before all of them were seen, and of a frequent class an epoch shows a part
    and the next epochs the rest.

    Args:
      seed: the run's seed.
      epoch: counted from 0.
      labels: the class of each training example.

    Example:
      >>> labels = np.array([0, 0, 0, 0, 0, 0, 0, 1])
      >>> np.bincount(labels[balanced_order(seed=0, epoch=0, labels=labels)])
      array([4, 4])
    """
    labels = np.asarray(labels)
    size = len(labels)
    classes, counts = np.unique(labels, return_counts=True)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = []
    for number, examples in enumerate(by_class):
        share = size // len(classes) + (number < size % len(classes))
        first, last = epoch * share, (epoch + 1) * share
        passes = range(first // len(examples), -(-last // len(examples)))
        stream = [
            _shuffled(examples, _words(seed, past, len(examples), _CLASSES, number))
            for past in passes
        ]
        start = first - passes.start * len(examples)
        chosen.append(np.concatenate(stream)[start : start + share])
    order = _shuffled(np.concatenate(chosen), _words(seed, epoch, size, _PLACES))
    return order.astype(np.int32)


def weighted_order(
    seed: int, epoch: int, weights: Num[np.ndarray, " size"]
) -> Int32[np.ndarray, " size"]:
    """Returns the examples of one epoch, each as often as its weight asks for.

    Systematic sampling: the examples are laid out in a random order, each as long as its weight,
    and ``size`` points at equal distances, the first at random, pick them. Example ``i`` comes
    ``size · wᵢ / Σw`` times in the mean over epochs, and in any one epoch that number rounded up or
    down: fewer accidents than drawing with replacement, whose counts spread like Poisson's.

    Args:
      seed: the run's seed.
      epoch: counted from 0.
      weights: at least 0, and not all 0.

    Example:
      >>> order = weighted_order(seed=0, epoch=0, weights=np.array([1.0, 0.0, 2.0, 1.0]))
      >>> np.bincount(order, minlength=4)
      array([1, 0, 2, 1])

    Reference:
      William G. Madow and Lillian H. Madow, On the theory of systematic sampling, I, Annals of
      Mathematical Statistics 15 (1944).
    """
    weights = np.asarray(weights, np.float64)
    size = len(weights)
    words = _words(seed, epoch, size + 1, _DRAWS)
    examples = _shuffled(np.flatnonzero(weights > 0), words[: np.count_nonzero(weights > 0)])
    ends = np.cumsum(weights[examples])
    first = (words[size] >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
    points = (first + np.arange(size)) * (ends[-1] / size)
    places = np.searchsorted(ends, points, side="right")
    picked = examples[np.minimum(places, len(examples) - 1)]  # rounding may pass the last end
    return _shuffled(picked, _words(seed, epoch, size, _PLACES)).astype(np.int32)


def check_weights(weights: Float[np.ndarray, " size"], what: str) -> None:
    """Raises a `DataError` unless weights are finite, at least 0 and not all 0.

    Args:
      weights: one a training example.
      what: names the column, for the message.
    """
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{what}: the weight of training example {first} (counted from 0) is {weights[first]:g}"
            f", as bad as {int(bad.sum()) - 1} more; expected finite numbers of at least 0."
        )
    if not weights.any():
        raise DataError(f"{what}: the weights of all training examples are 0.")


@dataclass(frozen=True, eq=False)
class Order:
    """The order of a training split: called with ``(seed, epoch, size)``, it gives an epoch's.

    It is compared by identity, keeps the last few epochs, and travels to other processes.

    Attributes:
      sampling: one of `SAMPLING`.
      values: the examples' classes (balanced) or weights (weighted); None for uniform.
    """

    sampling: str = "uniform"
    values: np.ndarray | None = None

    def __call__(self, seed: int, epoch: int, size: int) -> Int32[np.ndarray, " size"]:
        """Returns the examples of one epoch, a read-only array."""
        return _kept_order(self, seed, epoch, size)


@functools.lru_cache(maxsize=8)
def _kept_order(order: Order, seed: int, epoch: int, size: int) -> np.ndarray:
    if order.sampling == "uniform" or order.values is None:
        return epoch_order(seed, epoch, size)
    if len(order.values) != size:
        raise ValueError(f"the order is for {len(order.values)} examples, not {size}")
    made = {"balanced": balanced_order, "weighted": weighted_order}[order.sampling]
    examples = made(seed, epoch, order.values)
    examples.setflags(write=False)
    return examples


def make_order(
    sampling: str, labels: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Order:
    """Returns the `Order` that ``data.sampling`` asks for.

    Args:
      sampling: one of `SAMPLING`.
      labels: the training examples' classes, for ``balanced``.
      weights: the training examples' weights, for ``weighted``.

    Raises:
      DataError: the sampling is unknown, or what it goes by is not there.

    Example:
      >>> make_order("balanced", labels=np.array([0, 1, 1, 1]))(seed=0, epoch=0, size=4).shape
      (4,)
    """
    if sampling == "uniform":
        return Order()
    if sampling == "balanced":
        if labels is None or labels.dtype.kind not in "iu":
            raise DataError(
                "data.sampling: 'balanced' gives every class the same share; these targets are no "
                "classes. Use 'uniform', or 'weighted' with data.weight='COLUMN'."
            )
        return Order(sampling, np.asarray(labels))
    if sampling == "weighted":
        if weights is None:
            raise DataError("data.sampling: 'weighted' needs data.weight='COLUMN'.")
        check_weights(weights, "data.weight")
        return Order(sampling, np.asarray(weights, np.float64))
    raise DataError(f"data.sampling: {sampling!r} is unknown; there are {listing(SAMPLING)}.")
