"""Techniques of regularisation and of the loss: what keeps a model from memorising."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    Change,
    Facts,
    Technique,
    needs_key,
    needs_several_inputs,
    needs_task,
    unless,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config


CLASSES = ("classification", "token_classification", "segmentation")
"""The tasks with a class an example, or a position."""


def _patience(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, "train.patience") is not None:
        return ()
    return ({"train.patience": 10},)


OVERLAP = ("dice", "cross_entropy_dice")
"""The losses of masks that look at a whole mask, and weigh its classes by themselves."""


def _balanced(config: Config, facts: Facts) -> str | None:
    if value_of(config, "loss.name") in OVERLAP:
        return "The loss gives each class an equal say already."
    return None if facts.imbalance >= 1.5 else "The classes are about equally large."


def _decay(config: Config, facts: Facts) -> tuple[Change, ...]:
    now = value_of(config, "optim.weight_decay")
    tried = (0.01, 0.1, 0.3) if not now else (now * 5, now / 5)
    return tuple({"optim.weight_decay": float(f"{one:.3g}")} for one in tried if one != now)


REGULARISATION = (
    Technique(
        "dropout", "regularisation", ("generalisation",),
        "Drops a share of a layer's values at random while training.",
        values("model.dropout_rate", 0.2, 0.5, 0.1), "random bits for each value",
        "Srivastava et al., Dropout, 2014", 0.5, needs_key("model.dropout_rate"),
        {"model.dropout_rate": ("around", 2.0)},
    ),
    Technique(
        "stochastic_depth", "regularisation", ("generalisation",),
        "Leaves whole residual branches out at random while training, later ones more often.",
        values("model.drop_path_rate", 0.1, 0.2), "a random number for each example and block",
        "Huang et al., Deep networks with stochastic depth, 2016", 0.3,
        needs_key("model.drop_path_rate"), {"model.drop_path_rate": ("around", 2.0)},
    ),
    Technique(
        "modality_dropout", "regularisation", ("generalisation", "robustness"),
        "Masks whole inputs of examples at random while training, so that none is relied on alone.",
        values("model.modality_dropout", 0.1, 0.3), "nothing",
        "Neverova et al., ModDrop: adaptive multi-modal gesture recognition, 2016", 0.3,
        unless(needs_key("model.modality_dropout"), needs_several_inputs),
        {"model.modality_dropout": ("around", 2.0)},
    ),
    Technique(
        "weight_decay", "regularisation", ("generalisation",),
        "Takes a share of each weight off in every step, apart from the gradient.",
        _decay, "nothing", "Loshchilov and Hutter, Decoupled weight decay regularization, 2019",
        0.45, needs_key("optim.weight_decay"), {"optim.weight_decay": ("around", 10.0)},
    ),
    Technique(
        "l2", "regularisation", ("generalisation",), "Adds the squares of the weights to the loss.",
        values("loss.l2", 1e-4, 1e-3), "nothing",
        "Krogh and Hertz, A simple weight decay can improve generalization, 1992", 0.3,
        needs_key("loss.l2"), {"loss.l2": ("around", 10.0)},
    ),
    Technique(
        "l1", "regularisation", ("generalisation", "size"),
        "Adds the absolute weights to the loss: many become small.",
        values("loss.l1", 1e-5, 1e-4), "nothing", "Tibshirani, The lasso, 1996", 0.2,
        needs_key("loss.l1"), {"loss.l1": ("around", 10.0)},
    ),
    Technique(
        "label_smoothing", "regularisation", ("generalisation",),
        "Moves a share of each target evenly onto all classes.",
        values("loss.label_smoothing", 0.1, 0.2), "nothing",
        "Szegedy et al., Rethinking the inception architecture, 2016", 0.4,
        unless(needs_task(*CLASSES, "multilabel", "next_token"), needs_key("loss.label_smoothing")),
        {"loss.label_smoothing": ("around", 2.0)},
    ),
    Technique(
        "early_stopping", "regularisation", ("speed",),
        "Stops after ten evaluations without a better one; the best one is kept in any case.",
        _patience, "less than before", "Prechelt, Early stopping - but when?, 1998", 0.2,
    ),
    Technique(
        "class_weights", "loss", ("robustness", "accuracy"),
        "Weighs each class in the loss by how rare it is.",
        values("loss.class_weights", "balanced"), "nothing",
        "King and Zeng, Logistic regression in rare events data, 2001", 0.3,
        unless(needs_task(*CLASSES, "multilabel"), _balanced),
    ),
    Technique(
        "focal_loss", "loss", ("accuracy", "robustness"),
        "Lowers the weight of examples that are already right.",
        values("loss.name", "focal"), "nothing",
        "Lin et al., Focal loss for dense object detection, 2017", 0.2,
        needs_task(*CLASSES), {"loss.gamma": ("around", 2.0)},
    ),
    Technique(
        "overlap_loss", "loss", ("accuracy", "robustness"),
        "Learns the overlap of masks beside the class of each pixel: small classes count as much.",
        values("loss.name", "cross_entropy_dice"), "nothing",
        "Milletari et al., V-Net, 2016; Isensee et al., nnU-Net, 2021", 0.45,
        needs_task("segmentation"), {"loss.dice_weight": ("around", 2.0)},
    ),
    Technique(
        "huber_loss", "loss", ("robustness",),
        "Lets a large error pull no harder than a middling one.",
        values("loss.name", "huber"), "nothing",
        "Huber, Robust estimation of a location parameter, 1964", 0.25,
        needs_task("regression"), {"loss.delta": ("around", 4.0)},
    ),
    Technique(
        "absolute_loss", "loss", ("robustness",), "Learns the median instead of the mean.",
        values("loss.name", "mae"), "nothing", "Laplace", 0.15, needs_task("regression"),
    ),
    Technique(
        "squared_loss", "loss", ("accuracy",),
        "Learns the mean, where large errors count most: what RMSE measures.",
        values("loss.name", "mse"), "nothing", "Gauss; Legendre, 1805", 0.2,
        needs_task("regression"),
    ),
)  # fmt: skip
"""The techniques of regularisation and of the loss."""
