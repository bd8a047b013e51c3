"""A narrower model that keeps the weights of the channels that count most, and is trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jdlopt.compress.entry import Apply, Candidate, Given, Method, Train, TrainingBatches
from jdlopt.compress.slicing import sliced
from jdlopt.errors import ConfigError
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights

SHARES = (0.75, 0.5, 0.25)
"""Of each layer's channels, that are kept: widths are the same then, whatever the seed."""
Widths = dict[str, tuple[int, int]]
"""Of each layer, before and after."""
_EPOCHS, _RATE = 0.5, 0.5
"""Of the baseline's, that a sliced model is trained on with."""


def slice_to(
    share: float, config: Config, weights: Weights, batches: TrainingBatches
) -> tuple[Config, Weights]:
    """Returns a model with a share of each layer's channels, those that count most."""
    found = sliced(config, weights, share)
    return found.config, found.weights


def narrower(widths_at: Callable[[float], Widths], what: str) -> tuple[float, ...]:
    """Returns the `SHARES` that leave a narrower model, each another one.

    Args:
      widths_at: what a share leaves of each layer: its width before and after.
      what: layers have so many of, in words.

    Raises:
      ConfigError: none does; or as ``widths_at``.
    """
    found: dict[float, Widths] = {}
    for share in SHARES:
        widths = widths_at(share)
        smaller = any(before != after for before, after in widths.values())
        if smaller and widths not in found.values():
            found[share] = widths
    if not found:
        raise ConfigError(f"No layer has {what} to spare: widths are multiples of 8.")
    return tuple(found)


def _candidates(given: Given) -> tuple[Candidate, ...]:
    """One for each share.

    Raises:
      ConfigError: the model can't be sliced, or has nothing to spare.
    """
    shares = narrower(lambda share: sliced(given.config, given.weights, share).widths, "channels")
    return tuple(
        Candidate(
            f"slice_{round(100 * share)}",
            (
                Apply(f"keep {share:g} of each layer's channels", partial(slice_to, share)),
                Train(epochs=_EPOCHS, rate=_RATE),
            ),
        )
        for share in shares
    )


SLICING = Method(
    "slicing", (SIZE, SPEED),
    "Cuts the channels, heads and hidden units that count least out of the model, and trains on.",
    "half a training for each width",
    "Li et al., Pruning filters for efficient ConvNets, 2017; Fang et al., DepGraph, 2023",
    _candidates,
)  # fmt: skip
