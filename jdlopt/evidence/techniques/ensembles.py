"""Techniques of ensembles: several models, one prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import Facts, Technique, needs_unset, unless, values

if TYPE_CHECKING:
    from jdlopt.train.schema import Config


def _no_single_start(config: Config, facts: Facts) -> str | None:
    """Members start from values of their own, and are trained whole."""
    taken = [
        f"model.{key}"
        for key in ("lora_rank", "pretrained")
        if getattr(config.model, key) is not None
    ]
    taken += ["train.cache_features"] if config.train.cache_features else []
    return f"{taken[0]} is set: members start from values of their own." if taken else None


ENSEMBLES = (
    Technique(
        "ensemble", "ensembles", ("accuracy", "generalisation", "robustness"),
        "Trains copies of the model from other initial values, and averages what they predict.",
        values("model.ensemble", 3, 5), "as many times the arithmetic and the parameters",
        "Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep "
        "ensembles, 2017; Dietterich, Ensemble methods in machine learning, 2000", 0.4,
        unless(needs_unset("model.ensemble", 1), _no_single_start),
    ),
)  # fmt: skip
"""The techniques of ensembles."""
