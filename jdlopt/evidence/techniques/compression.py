"""Techniques of compression: fewer weights or fewer bits, learnt while a model is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    RATE,
    Change,
    Facts,
    Technique,
    unless,
    value_of,
)
from jdlopt.evidence.techniques.optimisation import averages_itself
from jdlopt.evidence.techniques.structure import halved, widths_of

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

CRITERION, SPARSITY = "model.prune.criterion", "model.prune.sparsity"
STRUCTURE = "model.prune.structure"
WEIGHTS, ACTIVATIONS = "model.quantize.weights", "model.quantize.activations"
RANK = "model.low_rank.rank"
UNSPLIT = ("linear", "gru", "lstm", "realmlp")
"""Models whose layers, but the head of some, can't be two products (`jdlopt.models.low_rank`)."""
TEACHER, AVERAGE = "loss.distill.teacher", "optim.average.name"


def _prunable(config: Config, facts: Facts) -> str | None:
    if value_of(config, "model.lora_rank") is not None:
        return "Kernels beside adapters (model.lora_rank) can't be pruned."
    if value_of(config, "model.name") == "linear":
        return "The model has no kernel but the head's."
    return None


def _sparse(config: Config, facts: Facts) -> tuple[Change, ...]:
    """Sparser than now, if it is pruned weight by weight already."""
    if value_of(config, CRITERION) is None:
        return tuple({CRITERION: "magnitude", SPARSITY: share} for share in (0.8, 0.9, 0.5, 0.95))
    if value_of(config, STRUCTURE) != "weights":
        return ()
    now = value_of(config, SPARSITY) or 0.0
    return tuple({SPARSITY: share} for share in (0.8, 0.9, 0.95, 0.98) if share > now)


def _structured(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, CRITERION) is not None:
        return ()
    units = {CRITERION: "magnitude", STRUCTURE: "units"}
    return tuple({**units, SPARSITY: share} for share in (0.5, 0.25))


def _few_bits(config: Config, facts: Facts) -> tuple[Change, ...]:
    now = value_of(config, WEIGHTS)
    activations = {} if value_of(config, ACTIVATIONS) is not None else {ACTIVATIONS: 8.0}
    return tuple({WEIGHTS: bits, **activations} for bits in (8.0, 4.0) if now is None or bits < now)


def _splittable(config: Config, facts: Facts) -> str | None:
    if value_of(config, "model.name") in UNSPLIT:
        return "The model has no layers that could be two products but the head."
    has_own = bool(config.model.low_rank.ranks)
    return "Layers have ranks of their own (model.low_rank)." if has_own else None


def _low_rank(config: Config, facts: Facts) -> tuple[Change, ...]:
    """Ranks of a quarter and an eighth of the widest layer; less than now, if it is of low rank."""
    widest = max(widths_of(config) or (64,))
    now = value_of(config, RANK) or widest
    return tuple({RANK: widest // by} for by in (4, 8) if 1 < widest // by < now)


def _teachable(config: Config, facts: Facts) -> str | None:
    if config.train.cache_features:
        return "train.cache_features is set: there is no teacher then."
    if config.loss.distill is not None:
        return "It learns from a teacher already (loss.distill)."
    return None


def _from_itself(config: Config) -> Change:
    """Its own average as the teacher; the average too, where there is none."""
    averaged = value_of(config, AVERAGE) != "none"
    average: Change = {} if averaged else {AVERAGE: "ema", "optim.average.decay": 0.99}
    return {**average, TEACHER: "ema", "loss.distill.temperature": 2.0}


def _self_distilled(config: Config, facts: Facts) -> tuple[Change, ...]:
    return (_from_itself(config),)


def _distilled_half(config: Config, facts: Facts) -> tuple[Change, ...]:
    return tuple({**half, **_from_itself(config)} for half in halved(config, facts))


TAUGHT = {**RATE, "loss.distill.temperature": ("around", 2.0)}
MEAN_TEACHER = (
    "Tarvainen and Valpola, Mean teachers are better role models, 2017; Hinton et al., Distilling "
    "the knowledge in a neural network, 2015"
)
COMPRESSION = (
    Technique(
        "pruning", "compression", ("size",),
        "Sets the smallest weights to 0 while it trains: 80, 90, 50 or 95 of 100.", _sparse,
        "a sort of the weights a hundred times in a training; zeros predict no faster",
        "Zhu and Gupta, To prune, or not to prune, 2018", 0.45, _prunable, RATE,
    ),
    Technique(
        "structured_pruning", "compression", ("size",),
        "Sets a half or a quarter of all channels, heads and hidden units to 0 as a whole.",
        _structured, "as pruning; what is 0 can be cut out of a finished run",
        "Li et al., Pruning filters for efficient ConvNets, 2017", 0.25, _prunable, RATE,
    ),
    Technique(
        "quantization", "compression", ("size",),
        "Trains with kernels of 8 or 4 bits, and layers' inputs of 8 (simulated).", _few_bits,
        "rounding in each step; faster predictions need an export in 8 bits",
        "Jacob et al., Quantization and training of neural networks, 2018; Bengio et al., "
        "Straight-through gradients, 2013", 0.5, nuisance=RATE,
    ),
    Technique(
        "low_rank", "compression", ("size", "inference speed"),
        "Makes each layer two products, of a rank of a quarter or an eighth of the widest one.",
        _low_rank, "less than before",
        "Sainath et al., Low-rank matrix factorization for deep neural network training, 2013",
        0.25, _splittable, RATE,
    ),
    Technique(
        "self_distillation", "loss", ("accuracy", "generalisation"),
        "Learns from the average of its own parameters, beside the targets.", _self_distilled,
        "a prediction of the average in each step", MEAN_TEACHER, 0.25,
        unless(_teachable, averages_itself), TAUGHT,
    ),
    Technique(
        "distilled_narrower", "compression", ("size", "inference speed"),
        "Makes every layer half as wide, and learns from its own average.", _distilled_half,
        "less than before", MEAN_TEACHER, 0.3, unless(_teachable, averages_itself), TAUGHT,
    ),
)  # fmt: skip
"""The techniques of compression, and of learning from what a model has become."""
