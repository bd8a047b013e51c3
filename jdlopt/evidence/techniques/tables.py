"""Techniques of tables: what numbers are made into, and models that were made for tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    RATE,
    Change,
    Facts,
    Technique,
    needs_key,
    needs_kind,
    needs_one_input,
    needs_only,
    needs_unset,
    unless,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

SCALE, BINS, NAME = "data.preprocess.scale", "data.preprocess.bins", "model.name"
EMBEDDING = "model.numeric_embedding"


def _realmlp(config: Config, facts: Facts) -> tuple[Change, ...]:
    """RealMLP with the optimizer, rates and scaling that it was tuned with."""
    if value_of(config, NAME) == "realmlp":
        return ()
    groups = {
        "optim.groups.scaling.params": ("^scaling/",),
        "optim.groups.scaling.learning_rate_scale": 6.0,
        "optim.groups.slow.params": (r"\bbias\b",),
        "optim.groups.slow.learning_rate_scale": 0.1,
    }
    change: Change = {
        NAME: "realmlp",
        "model.activation": "mish" if facts.task == "regression" else "selu",
        "model.dropout_rate": 0.15,
        SCALE: "robust_clipped",
        "optim.name": "adam",
        "optim.b2": 0.95,
        "optim.learning_rate": 0.2 if facts.task == "regression" else 0.04,
        "optim.schedule.name": "cosine_log",
    }
    return ({**change, **groups},) if not value_of(config, "optim.groups") else (change,)


def _tabm(config: Config, facts: Facts) -> tuple[Change, ...]:
    """Eight submodels: most of the gain of the paper's 32 for a quarter of the time."""
    if value_of(config, NAME) == "tabm":
        return ()
    sizes: Change = {"model.submodels": 8, "model.features": (128, 128)}
    change: Change = {NAME: "tabm", **sizes, "model.dropout_rate": 0.1}
    waves = {**change, "model.numeric_embedding": "pbld"}
    return (waves, change) if value_of(config, BINS) else (waves, {**change, BINS: 16})


def _more_submodels(config: Config, facts: Facts) -> tuple[Change, ...]:
    now = value_of(config, "model.submodels")
    return ({"model.submodels": 2 * now}, {"model.submodels": 4 * now}) if now else ()


def _bins(config: Config, facts: Facts) -> tuple[Change, ...]:
    """Bins in the place of embeddings: a bin's share is no number that waves would tell more of."""
    plain: Change = {EMBEDDING: None} if value_of(config, EMBEDDING) else {}
    return ({BINS: 16, **plain}, {BINS: 48, **plain})


ROWS = unless(needs_one_input, needs_kind("table"))
TABLES = (
    Technique(
        "quantile_scale", "data", ("accuracy", "robustness"),
        "Gives each feature of a table a normal distribution, by its rank in the training split.",
        values(SCALE, "quantile"), "a search among up to 256 quantiles for each value",
        "Gorishniy et al., Revisiting deep learning models for tabular data, 2021", 0.4,
        needs_only("table", beside=("text",)),
    ),
    Technique(
        "robust_clip", "data", ("accuracy", "robustness"),
        "Scales each feature by its quartiles, and draws far-off values in.",
        values(SCALE, "robust_clipped"), "nothing",
        "Holzmüller et al., Better by default, 2024", 0.4,
        needs_only("table", beside=("text",)),
    ),
    Technique(
        "piecewise_linear", "data", ("accuracy",),
        "Says of each number how far it has come through bins between its quantiles.",
        _bins, "as many inputs for each number as there are bins",
        "Gorishniy et al., On embeddings for numerical features in tabular deep learning, 2022",
        0.45, unless(needs_kind("table"), needs_unset(BINS)), RATE,
    ),
    Technique(
        "periodic_embedding", "structure", ("accuracy",),
        "Embeds each number by waves of learnt frequencies.",
        values(EMBEDDING, "pbld", "plr"), "a small dense layer for each column",
        "Gorishniy et al., On embeddings for numerical features in tabular deep learning, 2022",
        0.35, needs_key(EMBEDDING),
        {"model.numeric_sigma": ("around", 10.0)},
    ),
    Technique(
        "realmlp", "structure", ("accuracy",),
        "Replaces the model by a perceptron whose defaults were tuned on many tables.",
        _realmlp, "three layers of 256 and embeddings of numbers",
        "Holzmüller et al., Better by default, 2024", 0.5, ROWS, RATE,
    ),
    Technique(
        "tabm", "ensembles", ("accuracy", "generalisation", "robustness"),
        "Replaces the model by perceptrons that share their kernels, and are averaged.",
        _tabm, "eight times the arithmetic of a perceptron, hardly more parameters",
        "Gorishniy et al., TabM, 2024", 0.5, ROWS, RATE,
    ),
    Technique(
        "more_submodels", "ensembles", ("accuracy", "generalisation"),
        "Averages twice or four times as many submodels.", _more_submodels,
        "in proportion to their number", "Gorishniy et al., TabM, 2024", 0.3,
        needs_key("model.submodels"),
    ),
)  # fmt: skip
"""The techniques of tables."""
