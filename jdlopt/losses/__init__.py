"""Losses: how far each output is from its target, and the objective that training minimises."""

from jdlopt.losses.ctc import ctc
from jdlopt.losses.distill import EMA, DistillFields, feature_distance
from jdlopt.losses.functions import (
    LOSSES,
    TOGETHER,
    WHOLE_LOSSES,
    binary_cross_entropy,
    cross_entropy,
    fits,
    focal,
    huber,
    mae,
    mse,
    positively_weighted,
)
from jdlopt.losses.links import LINKS, Link
from jdlopt.losses.objective import Loss, LossFields, make_loss, mean_outputs, penalized
from jdlopt.losses.positions import of_rows, over_positions
from jdlopt.losses.weights import balanced_positives, balanced_weights, resolve_class_weights

__all__ = [
    "EMA",
    "LINKS",
    "LOSSES",
    "TOGETHER",
    "WHOLE_LOSSES",
    "DistillFields",
    "Link",
    "Loss",
    "LossFields",
    "balanced_positives",
    "balanced_weights",
    "binary_cross_entropy",
    "cross_entropy",
    "ctc",
    "feature_distance",
    "fits",
    "focal",
    "huber",
    "mae",
    "make_loss",
    "mean_outputs",
    "mse",
    "of_rows",
    "over_positions",
    "penalized",
    "positively_weighted",
    "resolve_class_weights",
]
