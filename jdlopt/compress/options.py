"""How a run is compressed: options, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jdlopt.config import Choice, Range
from jdlopt.config.options import Flag, option_problems, raise_option_problems
from jdlopt.errors import UserError, listing, nearest
from jdlopt.evidence.options import (
    FIRST_LOOK,
    LEVEL,
    SIZE,
    SPEED,
    Metric,
    OfIntervals,
    Workers,
    WorkersOn,
)
from jdlopt.evidence.within import read_within
from jdlopt.executor.place import place_problems
from jdlopt.study.options import ChangedData, Duration, seconds

JIT, ONNX = "jit", "onnx"
MOST_SEEDS, LARGEST_BATCH = 1000, 1 << 16


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
      runtime: what they are timed in: ``jit``, or ``onnx``, as files in ONNX Runtime, those of
        quantized models in 8 bits.
      seeds: pairs at most: the run's own seed and those after it.
      metric: ``validation/METRIC``; its task's by default.
      level: of the intervals.
      workers: processes; one a core by default.
      workers_on: where they run: ``here``, ``ray[:HOST:PORT]``, ``slurm``.
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
    runtime: Annotated[
        str,
        Choice((JIT, ONNX)),
        Flag("that predictions are timed in; onnx is ONNX Runtime", "NAME"),
    ] = JIT
    seeds: Annotated[
        int,
        Range(FIRST_LOOK, MOST_SEEDS),
        Flag("pairs at most, the run's own seed among them", "N"),
    ] = 5
    metric: Metric = None
    level: OfIntervals = LEVEL
    workers: Workers = None
    workers_on: WorkersOn = None
    changed_data: ChangedData = "refuse"

    def check(self) -> None:
        """Checks every option.

        Raises:
          UserError: what is wrong, all of it in one message.
        """
        from jdlopt.compress.methods import METHODS  # help must not wait for it

        problems = option_problems(self) + place_problems(self.workers_on)
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
