"""A narrower model that keeps the weights of the channels that count most, and is trained on."""

from __future__ import annotations

from functools import partial

from jdlopt.compress.entry import Apply, Candidate, Given, Method, Train, TrainingBatches
from jdlopt.compress.slicing import sliced
from jdlopt.errors import ConfigError
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights

SHARES = (0.75, 0.5, 0.25)
"""Of each layer's channels, that are kept: widths are the same then, whatever the seed."""
_EPOCHS, _RATE = 0.5, 0.5
"""Of the baseline's, that a sliced model is trained on with."""


def slice_to(
    share: float, config: Config, weights: Weights, batches: TrainingBatches
) -> tuple[Config, Weights]:
    """Returns a model with a share of each layer's channels, those that count most."""
    found = sliced(config, weights, share)
    return found.config, found.weights


def _widths(given: Given) -> dict[float, dict[str, tuple[int, int]]]:
    """What each share would leave of each layer; shares that leave what a larger one does are out.

    Raises:
      ConfigError: the model can't be sliced.
    """
    found: dict[float, dict[str, tuple[int, int]]] = {}
    for share in SHARES:
        widths = sliced(given.config, given.weights, share).widths
        narrower = any(before != after for before, after in widths.values())
        if narrower and widths not in found.values():
            found[share] = widths
    return found


def _why_not(given: Given) -> str | None:
    try:
        if not _widths(given):
            return "No layer has channels to spare: widths are multiples of 8."
    except ConfigError as error:
        return str(error)
    return None


def _candidates(given: Given) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            f"slice_{round(100 * share)}",
            (
                Apply(f"keep {share:g} of each layer's channels", partial(slice_to, share)),
                Train(epochs=_EPOCHS, rate=_RATE),
            ),
        )
        for share in _widths(given)
    )


SLICING = Method(
    "slicing", (SIZE, SPEED),
    "Cuts the channels, heads and hidden units that count least out of the model, and trains on.",
    "half a training for each width",
    "Li et al., Pruning filters for efficient ConvNets, 2017; Fang et al., DepGraph, 2023",
    _candidates, _why_not,
)  # fmt: skip
