"""Techniques that take regularisation away again: where a model does not learn what it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.errors import listing
from jdlopt.evidence.techniques.entry import (
    Applies,
    Change,
    Changes,
    Facts,
    Technique,
    value_of,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

DROPOUT = ("model.dropout_rate", "model.drop_path_rate")
PENALTIES = ("optim.weight_decay", "loss.l1", "loss.l2")
SMOOTHING = ("loss.label_smoothing",)
AUGMENTED = tuple(f"data.augment.{name}" for name in AUGMENTATIONS)


def numbers_of(config: Config | Mapping[str, object], keys: tuple[str, ...]) -> dict[str, float]:
    """Returns those of some keys that are numbers above 0."""
    found = {key: value_of(config, key) for key in keys}
    return {key: now for key, now in found.items() if isinstance(now, int | float) and now > 0}


def _needs(keys: tuple[str, ...]) -> Applies:
    def applies(config: Config, facts: Facts) -> str | None:
        if numbers_of(config, keys):
            return None
        few = listing(keys) if len(keys) < 4 else "data.augment"
        return f"There is nothing to take away: {few} is not set."

    return applies


def _less(keys: tuple[str, ...], share: float) -> Changes:
    """All of some keys off; and, next, each at a share of what it is."""

    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        now = numbers_of(config, keys)
        weaker = {key: float(f"{value * share:.3g}") for key, value in now.items()}
        return (dict.fromkeys(now), weaker) if now else ()

    return changes


def _without(name: str, summary: str, keys: tuple[str, ...], share: float, source: str,
             prior: float) -> Technique:  # fmt: skip
    return Technique(
        name, "regularisation", ("accuracy",), summary, _less(keys, share),
        "less than before", source, prior, _needs(keys),
    )  # fmt: skip


REMOVAL = (
    _without(
        "less_dropout", "Switches dropout and stochastic depth off, or halves their rates.",
        DROPOUT, 0.5, "Li et al., Understanding the disharmony between dropout and batch "
        "normalization by variance shift, 2019", 0.3,
    ),
    _without(
        "less_weight_decay", "Switches weight decay and penalties off, or divides them by ten.",
        PENALTIES, 0.1, "Bishop, Pattern recognition and machine learning, 2006", 0.25,
    ),
    _without(
        "less_label_smoothing", "Switches label smoothing off, or halves it.",
        SMOOTHING, 0.5, "Müller et al., When does label smoothing help?, 2019", 0.2,
    ),
    _without(
        "less_augmentation", "Switches all augmentations off, or halves their strengths.",
        AUGMENTED, 0.5, "Balestriero et al., The effects of regularization and data augmentation "
        "are class dependent, 2022", 0.2,
    ),
)  # fmt: skip
"""The techniques that take regularisation away."""
