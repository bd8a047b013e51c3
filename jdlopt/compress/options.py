"""How a run is compressed: options, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from jdlopt.config import Choice, Range
from jdlopt.config.options import Flag, option_problems, raise_option_problems
from jdlopt.errors import UserError, listing, nearest
from jdlopt.evidence.options import LEVEL, Metric, OfIntervals, Workers
from jdlopt.study.options import ChangedData, Duration, seconds

SIZE, SPEED = "size", "speed"
MOST_SEEDS, LARGEST_BATCH = 1000, 1 << 16
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


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--batch-sizes: {text!r} can't be read: whole numbers, such as 1,32."
        ) from None


@dataclass(frozen=True, kw_only=True)
class CompressionOptions:
    """How to compress.

    Attributes:
      within: what may be lost: ``0.5pp`` (points of a metric that is a share), ``2%`` (of the
        baseline's value), or a number in units of the metric, where it is no share.
      methods: names to try; all that apply by default.
      budget: seconds in all, those of earlier calls included.
      prefer: what is chosen among what is accepted: the smallest, or the fastest.
      batch_sizes: at which predictions are timed.
      seeds: pairs at most: the run's own seed and those after it.
      metric: ``validation/METRIC``; its task's by default.
      level: of the intervals.
      workers: processes; one a core by default.
      changed_data: ``ok`` takes data that are not those of the run.
    """

    within: Annotated[str, Flag("what may be lost: 0.5pp, 2%, or in the metric's units", "LOSS")]
    methods: Annotated[tuple[str, ...], Flag("names to try", "A,B,C", shown="all")] = ()
    budget: Annotated[
        Duration, Flag("in all, such as 90s, 20m", "TIME", read=seconds, shown="20m")
    ] = 1200.0
    prefer: Annotated[str, Choice((SIZE, SPEED)), Flag("the smallest, or the fastest", "NAME")] = (
        SIZE
    )
    batch_sizes: Annotated[
        tuple[int, ...], Flag("of the predictions that are timed", "N,N", shown="1,32",
                              read=_numbers)
    ] = (1, 32)  # fmt: skip
    seeds: Annotated[
        int,
        Range(FIRST_LOOK, MOST_SEEDS),
        Flag("pairs at most, the run's own seed among them", "N"),
    ] = 5
    metric: Metric = None
    level: OfIntervals = LEVEL
    workers: Workers = None
    changed_data: ChangedData = "refuse"

    def check(self) -> None:
        """Checks every option.

        Raises:
          UserError: what is wrong, all of it in one message.
        """
        from jdlopt.compress.methods import METHODS  # help must not wait for it

        problems = option_problems(self)
        try:
            read_within(self.within)
        except UserError as error:
            problems.append(str(error))
        problems += [
            f"--methods: {name!r} is unknown.{nearest(name, METHODS)} Known: {listing(METHODS)}."
            for name in self.methods
            if name not in METHODS
        ]
        if not self.batch_sizes or not all(
            type(one) is int and 1 <= one <= LARGEST_BATCH for one in self.batch_sizes
        ):
            problems.append(
                f"--batch-sizes: whole numbers from 1 to {LARGEST_BATCH:,}, found "
                f"{','.join(map(str, self.batch_sizes)) or 'none'}."
            )
        raise_option_problems(problems)
