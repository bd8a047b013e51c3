"""Metrics of masks, from counts of pixels by true and predicted class; exact over a split."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jdlopt.metrics.scores import Split, ratio

Pixels = Int[np.ndarray, "classes classes"]


def counted(targets: Int[np.ndarray, "*shape"], masks: Int[np.ndarray, "*shape"], k: int) -> Pixels:
    """Returns how many pixels there are of each true class (row) and predicted class (column).

    Args:
      targets: true classes; below 0 is void.
      masks: predicted classes.
      k: the number of classes.

    Example:
      >>> counted(np.array([0, 1, 1, -1]), np.array([0, 1, 0, 1]), 2).tolist()
      [[1, 0], [1, 1]]
    """
    known = targets >= 0
    cells = targets[known].astype(np.int64) * k + masks[known]
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def parts(pixels: Pixels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns of each class the pixels that are right, its own, and those predicted as it."""
    return np.diag(pixels), pixels.sum(axis=1), pixels.sum(axis=0)


def iou(pixels: Pixels) -> Float[np.ndarray, " classes"]:
    """Returns each class's intersection over union (Jaccard index); 0 where there is no pixel.

    Example:
      >>> iou(np.array([[3, 1], [0, 4]])).tolist()
      [0.75, 0.8]
    """
    right, true, predicted = parts(pixels)
    return ratio(right, true + predicted - right)


def dice(pixels: Pixels) -> Float[np.ndarray, " classes"]:
    """Returns each class's Dice coefficient, which is its F1; 0 where there is no pixel."""
    right, true, predicted = parts(pixels)
    return ratio(2 * right, true + predicted)


def mean_of(pixels: Pixels, values: Float[np.ndarray, " classes"]) -> float:
    """Returns the mean over the classes that some pixel has, or is predicted to have."""
    _, true, predicted = parts(pixels)
    there = true + predicted > 0
    return float(values[there].mean()) if there.any() else float("nan")


def mean_iou(split: Split) -> float:
    """Returns the mean intersection over union of the classes that occur."""
    return mean_of(split.leaves["pixels"], iou(split.leaves["pixels"]))


def mean_dice(split: Split) -> float:
    """Returns the mean Dice coefficient of the classes that occur."""
    return mean_of(split.leaves["pixels"], dice(split.leaves["pixels"]))


def iou_per_class(split: Split) -> list[float]:
    """Returns the intersection over union of every class."""
    values: list[float] = iou(split.leaves["pixels"]).tolist()
    return values


def pixel_accuracy(split: Split) -> float:
    """Returns the share of pixels that are right."""
    pixels = split.leaves["pixels"]
    return float(np.trace(pixels) / pixels.sum()) if pixels.sum() else float("nan")
