"""Techniques of transfer: what becomes of a body that knows something already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    Change,
    Facts,
    Technique,
    unless,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

BODY = r"^(?!(model/)?head/)"
"""Every parameter that is not the head's."""


def _pretrained(config: Config, facts: Facts) -> str | None:
    known = value_of(config, "model.pretrained")
    return None if known else "The model starts from random values: nothing is there to keep."


def _no_adapters(config: Config, facts: Facts) -> str | None:
    return "Adapters are there already." if value_of(config, "model.lora_rank") else None


def _two_phases(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, "optim.groups"):
        return ()
    rate = value_of(config, "optim.learning_rate")
    groups = {"params": (BODY,), "learning_rate": float(f"{rate / 10:.3g}")}
    start = max(1, facts.total_steps // 3)
    return tuple(
        {f"optim.groups.body.{key}": value for key, value in {**groups, **more}.items()}
        for more in ({"unfreeze_at": start}, {})
    )


def _discriminative(config: Config, facts: Facts) -> tuple[Change, ...]:
    if value_of(config, "optim.groups"):
        return ()
    return tuple(
        {"optim.groups.body.params": (BODY,), "optim.groups.body.layer_decay": decay}
        for decay in (0.8, 0.65)
    )


TRANSFER = (
    Technique(
        "freeze_body", "transfer", ("speed", "memory", "generalisation"),
        "Trains the head alone.", values("optim.freeze", (BODY,)),
        "no backward pass through the body", "Yosinski et al., 2014", 0.3, _pretrained,
        {"optim.learning_rate": ("around", 10.0)},
    ),
    Technique(
        "two_phases", "transfer", ("accuracy", "generalisation"),
        "Trains the head on a frozen body first, then both, the body at a tenth of the rate.",
        _two_phases, "nothing", "Howard and Ruder, ULMFiT, 2018", 0.4, _pretrained,
        {"optim.learning_rate": ("around", 4.0)},
    ),
    Technique(
        "layer_decay", "transfer", ("accuracy", "generalisation"),
        "Gives each layer a smaller rate than the one above it.", _discriminative, "nothing",
        "Howard and Ruder, ULMFiT, 2018; Clark et al., ELECTRA, 2020", 0.4, _pretrained,
        {"optim.learning_rate": ("around", 4.0)},
    ),
    Technique(
        "adapters", "transfer", ("memory", "generalisation"),
        "Trains low-rank adapters beside frozen kernels.", values("model.lora_rank", 8, 32),
        "the optimizer remembers the adapters alone", "Hu et al., LoRA, 2022", 0.3,
        unless(_pretrained, _no_adapters), {"optim.learning_rate": ("around", 10.0)},
    ),
    Technique(
        "frozen_batch_norm", "transfer", ("robustness",),
        "Keeps batch norm's statistics as they came.", values("model.freeze_norm", True),
        "less than before", "He et al., Mask R-CNN, 2017", 0.2, _pretrained,
    ),
    Technique(
        "cached_features", "transfer", ("speed",),
        "Computes what the frozen body makes of each example once.",
        values("train.cache_features", True), "the features' memory",
        "Donahue et al., DeCAF, 2014", 0.2,
        lambda config, facts: None if value_of(config, "optim.freeze") else "Nothing is frozen.",
    ),
)  # fmt: skip
"""The techniques of transfer."""
