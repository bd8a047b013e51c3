"""Sparse models: trained on while their weights are pruned, from each seed's own weights."""

from __future__ import annotations

from jdlopt.compress.entry import Candidate, Given, Method, Train
from jdlopt.evidence.options import SIZE

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
"""Of the kernels but the head's."""


def why_not_pruned(given: Given) -> str | None:
    """Returns why a run can't be pruned while it is trained on, or None."""
    model = given.config.model
    if model.prune.criterion is not None:
        return "The run is pruned already (model.prune)."
    if model.lora_rank is not None:
        return "Kernels beside adapters (model.lora_rank) can't be pruned."
    return None


def _candidates(given: Given) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            f"sparse_{round(100 * sparsity)}",
            (
                Train(
                    {"model.prune.criterion": "magnitude", "model.prune.sparsity": sparsity},
                    rate=0.5,
                ),
            ),
        )
        for sparsity in SPARSITIES
    )


PRUNING = Method(
    "pruning", (SIZE,),
    "Sets the smallest weights to 0 while it trains on; stored as what is left and where.",
    "half a training, all sparsities together",
    "Zhu and Gupta, To prune, or not to prune, 2018", _candidates, why_not_pruned,
)  # fmt: skip
