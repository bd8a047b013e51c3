"""How much may be lost: the margin, and when a candidate is known to lie within it.

A candidate is accepted if the interval of its loss lies within the margin (a test of
non-inferiority: Wellek, Testing statistical hypotheses of equivalence and noninferiority, 2010).
The interval holds at every look, so that one may stop at any. Where the true loss is the margin,
a candidate is accepted with a probability of at most half of what the level leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jdlopt.evidence import statistics
from jdlopt.evidence.options import FIRST_LOOK

ACCEPTED, REJECTED, UNDECIDED = "accepted", "rejected", "undecided"
PRIOR = 10.0
"""Variance of the standardised effect: a margin is often several standard deviations of a pair.
With it three pairs can decide, and five need less than with the variance of a comparison; the error
rate holds for any."""


class Decided(NamedTuple):
    """What is known of a candidate after a look.

    Attributes:
      decision: ``accepted``, ``rejected`` or ``undecided``.
      effect: of the losses; None before there are any.
      hopeless: whether more seeds are not worth their trainings.
    """

    decision: str
    effect: statistics.Effect | None
    hopeless: bool


def decide(
    losses: Sequence[float], margin: float, level: float, resolution: float = 0.0
) -> Decided:
    """Returns what the losses of so many pairs say.

    A candidate whose losses lie above the margin by more than their standard error is not tried on
    more seeds: to stop there never accepts anything.

    Args:
      losses: what the candidate is worse by, a seed each, in the order of the seeds.
      margin: that may be lost.
      level: of the interval, which holds at every look.
      resolution: the step in which the metric moves.

    Example:
      >>> decide([0.0, 0.001, 0.0, 0.001, 0.0], 0.01, 0.95).decision
      'accepted'
      >>> decide([0.03, 0.02, 0.03], 0.01, 0.95).hopeless
      True
    """
    if len(losses) < 2:
        return Decided(UNDECIDED, None, False)
    effect = statistics.sequential_effect(losses, level, resolution, PRIOR)
    if effect.pairs >= FIRST_LOOK and effect.high <= margin:
        return Decided(ACCEPTED, effect, False)
    if effect.low > margin:
        return Decided(REJECTED, effect, True)
    error = effect.std / effect.pairs**0.5
    return Decided(UNDECIDED, effect, effect.mean - error > margin)


def is_within(effect: statistics.Effect, margin: float) -> bool:
    """Says whether an interval of gains shows that less than a margin is lost.

    With a margin of 0 it shows that something is gained.

    Example:
      >>> effect = statistics.Effect(-0.001, -0.003, 0.001, 0.3, 0.003, 10, False)
      >>> is_within(effect, 0.005), is_within(effect, 0.002), is_within(effect, 0.0)
      (True, False, False)
    """
    return effect.low > -margin


def is_foreseen(
    losses: Sequence[float], margin: float, level: float, pairs: int, resolution: float = 0.0
) -> bool:
    """Says whether so many pairs more, if they are like these, will show that little is lost.

    Args:
      losses: what is lost so far, a seed each.
      margin: that may be lost.
      level: of the interval, for a number of pairs that was set before.
      pairs: that are to come.
      resolution: the step in which the metric moves.

    Example:
      >>> losses = [0.001, 0.003, 0.001, 0.003]
      >>> is_foreseen(losses, 0.004, 0.95, 10), is_foreseen(losses, 0.004, 0.95, 3)
      (True, False)
    """
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + level / 2, pairs - 1)) / pairs**0.5
    mean = sum(losses) / len(losses)
    return mean + reach * statistics.spread(losses, resolution) < margin


def looks(seeds: int) -> list[int]:
    """Returns the numbers of pairs at which the losses are looked at.

    Example:
      >>> looks(5), looks(10), looks(2)
      ([3, 5], [3, 5, 7, 9, 10], [2])
    """
    return sorted({*range(min(FIRST_LOOK, seeds), seeds, 2), seeds})
