"""Segmentation: one of several classes at each pixel of an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float, Int

from jdlopt.data.coders import CODERS
from jdlopt.data.spec import DataSpec
from jdlopt.tasks.positions import share_right
from jdlopt.tasks.task import Columns, Decoded, Task

TOLD = 3
"""Classes that are named in the words for a mask: those with most pixels, but for class 0."""


def width(spec: DataSpec, loss: str) -> int:
    """Returns one output a class, at each pixel."""
    return spec.num_classes


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of a batch's pixels that are classified right; void ones don't count."""
    return {"pixel_accuracy": share_right(outputs, targets)}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the likeliest class of each pixel, [n, height, width]."""
    found = outputs if probabilities is None else probabilities
    return of_masks(found.argmax(-1).astype(np.int32), spec)


def of_masks(masks: Int[np.ndarray, "n height width"], spec: DataSpec) -> Decoded:
    """Returns masks and, in words, what they show."""
    return Decoded(masks, told(masks, spec))


def told(masks: np.ndarray, spec: DataSpec) -> list[str]:
    """Returns the largest classes of each mask with their shares of its pixels, class 0 last."""
    return [_told(shares, spec) for shares in shares_of(masks, spec.num_classes)]


def shares_of(
    masks: Int[np.ndarray, "n height width"], classes: int
) -> Float[np.ndarray, "n classes"]:
    """Returns each class's share of a mask's pixels; void ones count for nothing.

    Example:
      >>> shares_of(np.array([[[0, 1], [-1, 1]]]), 2).round(2).tolist()
      [[0.33, 0.67]]
    """
    counts = np.stack([np.bincount(one[one >= 0].ravel(), minlength=classes) for one in masks])
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _told(shares: Float[np.ndarray, " classes"], spec: DataSpec) -> str:
    """Says which classes a mask shows."""
    order = [place for place in np.argsort(-shares, kind="stable").tolist() if shares[place] > 0]
    chosen = [place for place in order if place][:TOLD] or order
    return ", ".join(f"{spec.class_names[place]} {shares[place]:.1%}" for place in chosen) or "void"


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns each class's share of the pixels."""
    shares = shares_of(decoded.values, spec.num_classes).T.tolist()
    return {f"share_{name}": some for name, some in zip(spec.class_names, shares, strict=True)}


SEGMENTATION = Task(
    name="segmentation",
    coder=CODERS["segmentation"],
    link="softmax",
    losses=("cross_entropy", "dice", "cross_entropy_dice", "focal"),
    metrics=("mean_iou", "pixel_accuracy"),
    monitor="validation/mean_iou",
    judged="mean_iou",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"masks"}),
    told=told,
)
