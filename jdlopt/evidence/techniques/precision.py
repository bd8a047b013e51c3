"""Techniques of precision and memory: the same training, cheaper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.evidence.techniques.entry import (
    Change,
    Facts,
    Technique,
    needs_key,
    value_of,
    values,
)

if TYPE_CHECKING:
    from jdlopt.train.schema import Config


def _accumulate(config: Config, facts: Facts) -> tuple[Change, ...]:
    size, now = value_of(config, "data.batch_size"), value_of(config, "optim.accumulate")
    return tuple(
        {"optim.accumulate": parts} for parts in (2, 4) if parts > now and size % parts == 0
    )


PRECISION = (
    Technique(
        "bfloat16", "precision", ("speed", "memory", "inference speed"),
        "Computes in bfloat16; parameters and sums stay float32.",
        values("model.dtype", "bfloat16"), "half the activations; slow on most CPUs",
        "Kalamkar et al., A study of bfloat16 for deep learning training, 2019", 0.3,
    ),
    Technique(
        "float16", "precision", ("speed", "memory", "inference speed"),
        "Computes in float16 with a dynamic loss scale.",
        values("model.dtype", "float16"), "half the activations; steps that overflow are skipped",
        "Micikevicius et al., Mixed precision training, 2018", 0.2,
    ),
    Technique(
        "rematerialisation", "precision", ("memory",),
        "Computes activations again in the backward pass instead of keeping them.",
        values("model.remat", "full", "dots"), "up to a third more arithmetic",
        "Chen et al., Training deep nets with sublinear memory cost, 2016", 0.2,
        needs_key("model.remat"),
    ),
    Technique(
        "scan_layers", "precision", ("memory", "speed"),
        "Runs equal layers as one loop that is compiled once.",
        values("model.scan_layers", True), "the same step, compiled sooner",
        "Bradbury et al., JAX, 2018", 0.2, needs_key("model.scan_layers"),
    ),
    Technique(
        "accumulation", "precision", ("memory",),
        "Computes a batch's gradient in parts, one after the other.", _accumulate,
        "the same arithmetic, less of it at a time", "as in every large training", 0.2,
    ),
)  # fmt: skip
"""The techniques of precision and memory."""
