"""What may be lost for a smaller or a faster model, as people say it: ``--within``."""

from __future__ import annotations

import re
from typing import NamedTuple

from jdlopt.errors import UserError

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
