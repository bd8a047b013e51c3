"""Which trials of a population stop early: successive halving, or those below the median."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

History = dict[int, list[float]]
"""Step of a rung → the values that trials had reached there, higher being better."""


def rungs(
    total_steps: int, eval_every: int, reduction: int = 3, first: float = 1 / 27
) -> list[int]:
    """Returns the steps at which trials are compared: evaluations, spaced by powers.

    Args:
      total_steps: updates in a whole run.
      eval_every: steps between evaluations; a rung is at one of them.
      reduction: each rung is so many times further than the one before.
      first: the share of the run before the first rung, at least one evaluation.

    Example:
      >>> rungs(640, 32)
      [32, 96, 224]
    """
    found: list[int] = []
    share = first
    while share < 1 - 1e-9:
        step = max(1, math.ceil(round(share * total_steps / eval_every, 6))) * eval_every
        if step < total_steps and (not found or step > found[-1]):
            found.append(step)
        share *= reduction
    return found


def asha(values: Mapping[int, float], history: Sequence[float], reduction: int = 3) -> list[int]:
    """Returns the trials to stop at a rung: all but the best ``1 / reduction`` of those seen there.

    Li et al., "A system for massively parallel hyperparameter tuning", 2020
    (https://arxiv.org/abs/1810.05934). A trial competes with the others of its population and with
    everything that reached the rung before; the best of a population always goes on.

    Args:
      values: trial → its best value so far, higher being better; NaN is worse than any other.
      history: values of earlier trials at this rung.
      reduction: one in so many goes on.

    Example:
      >>> asha({0: 0.1, 1: 0.5, 2: 0.9}, history=[])
      [0, 1]
    """
    if not values:
        return []
    values = _ranked(values)
    everything = np.sort(np.array([*values.values(), *history]))[::-1]
    kept = max(1, len(everything) // reduction)
    threshold = min(everything[kept - 1], max(values.values()))
    return [trial for trial, value in values.items() if value < threshold]


def _ranked(values: Mapping[int, float]) -> dict[int, float]:
    """The values with undefined ones (NaN) below all others: nothing compares with NaN."""
    return {key: -math.inf if math.isnan(value) else value for key, value in values.items()}


def median(values: Mapping[int, float], history: Sequence[float], reduction: int = 3) -> list[int]:
    """Returns the trials to stop at a rung: those below the median of all seen there.

    Golovin et al., "Google Vizier: a service for black-box optimization", 2017.

    Example:
      >>> median({0: 0.1, 1: 0.5, 2: 0.9}, history=[])
      [0]
    """
    values = _ranked(values)
    middle = float(np.median([*values.values(), *history])) if values else 0.0
    return [trial for trial, value in values.items() if value < middle]


RULES: dict[str, Callable[..., list[int]]] = {"asha": asha, "median": median}
"""How a rung decides: ``(values, history, reduction) → trials to stop``."""
