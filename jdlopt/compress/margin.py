"""How much may be lost: the margin, and when a candidate is known to lie within it.

A candidate is accepted if the interval of its loss lies within the margin (a test of
non-inferiority: Wellek, Testing statistical hypotheses of equivalence and noninferiority, 2010).
The interval holds at every look, so that one may stop at any. Where the true loss is the margin,
a candidate is accepted with a probability of at most half of what the level leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from jdlopt.errors import UserError
from jdlopt.evidence import statistics

ACCEPTED, REJECTED, UNDECIDED = "accepted", "rejected", "undecided"
PRIOR = 10.0
"""Variance of the standardised effect: a margin is often several standard deviations of a pair.
With it three pairs can decide, and five need less than with the variance of a comparison; the error
rate holds for any."""
FIRST_LOOK = 3
"""Pairs before the first look, which is the first that can decide."""
IN_UNITS = frozenset(("loss", "log_loss", "mse", "rmse", "mae", "r2"))
"""Metrics that are no shares of one, so that points mean nothing of them."""
HOW = "write points (0.5pp) or a share of the baseline's value (2%)"


class Within(NamedTuple):
    """What may be lost, as it was said.

    Attributes:
      value: above 0.
      kind: ``points`` (hundredths of a metric that is a share), ``relative`` (hundredths of the
        baseline's value) or ``units`` of the metric.
    """

    value: float
    kind: str

    def margin(self, baseline: float) -> float:
        """Returns the margin in units of the metric.

        Args:
          baseline: the mean of the metric.
        """
        if self.kind == "units":
            return self.value
        return self.value / 100 * (1.0 if self.kind == "points" else abs(baseline))


def read_within(text: str) -> Within:
    """Reads what may be lost.

    Raises:
      UserError: it can't be read, or is not above 0.

    Example:
      >>> read_within("0.5pp"), read_within("2%").margin(0.9), read_within("0.1").kind
      (Within(value=0.5, kind='points'), 0.018000000000000002, 'units')
    """
    found = re.fullmatch(r"\s*(-?\d+(?:\.\d*)?|-?\.\d+)(?:e(-?\d+))?\s*(pp|%|)\s*", str(text))
    if found is None:
        raise UserError(
            f"--within: {text!r} can't be read: {HOW}, or a number in units of the metric."
        )
    value = float(found[1] + (f"e{found[2]}" if found[2] else ""))
    if value <= 0:
        raise UserError(f"--within: must be above 0, found {text}: no finite number of seeds shows "
                        "that nothing at all is lost.")  # fmt: skip
    return Within(value, {"pp": "points", "%": "relative", "": "units"}[found[3]])


def check_within(within: Within, metric: str) -> None:
    """Checks that what may be lost means something of a metric.

    Raises:
      UserError: it does not.
    """
    name = metric.partition("/")[2]
    in_units = name in IN_UNITS
    if within.kind == "points" and in_units:
        raise UserError(
            f"--within: {within.value:g}pp are points of a share; {metric} is none: write a number "
            "in its units, or a share of the baseline's value (2%)."
        )
    if within.kind == "units" and not in_units:
        raise UserError(f"--within: {within.value:g} of {metric}: {HOW}.")


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


def looks(seeds: int) -> list[int]:
    """Returns the numbers of pairs at which the losses are looked at.

    Example:
      >>> looks(5), looks(10), looks(2)
      ([3, 5], [3, 5, 7, 9, 10], [2])
    """
    return sorted({*range(min(FIRST_LOOK, seeds), seeds, 2), seeds})
