"""What stops a run: the best evaluation and patience, values that are not finite, and signals."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

import numpy as np

from jdlopt.errors import DivergedError


@dataclass(frozen=True)
class Best:
    """The best evaluation so far, and how many have come since.

    Attributes:
      metric: the monitored metric.
      higher: whether more of it is better.
      step: the step of the best evaluation, -1 before the first.
      value: its value.
      since: evaluations since then that were not better.
    """

    metric: str
    higher: bool
    step: int = -1
    value: float = math.nan
    since: int = 0

    def improved_by(self, value: float) -> bool:
        """Says whether a value is better; NaN never is, but the first value is kept."""
        if self.step < 0:
            return True
        if math.isnan(value):
            return False
        return math.isnan(self.value) or (value > self.value if self.higher else value < self.value)

    def seen(self, step: int, value: float) -> Best:
        """Returns the record after one more evaluation."""
        if self.improved_by(value):
            return replace(self, step=step, value=value, since=0)
        return replace(self, since=self.since + 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON can hold it (NaN as None)."""
        return {**asdict(self), "value": None if math.isnan(self.value) else self.value}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Best:
        """Returns the record that `to_dict` wrote."""
        value = record["value"]
        return Best(**{**record, "value": math.nan if value is None else value})


def check_finite(first_step: int, measured: dict[str, np.ndarray]) -> None:
    """Looks for the first step whose loss or gradient is not finite.

    Args:
      first_step: the number of the first step measured (the first of a run is 1).
      measured: per-step values, each [steps].

    Raises:
      DivergedError: with the step and the quantity that blew up.
    """
    finite = {name: np.isfinite(values) for name, values in measured.items()}
    bad = ~np.logical_and.reduce(list(finite.values()))
    if not bad.any():
        return
    at = int(bad.argmax())
    name = next(
        name for name in ("loss", "grad_norm", *finite) if name in finite and not finite[name][at]
    )
    before = ""
    if at and "grad_norm" in measured:
        before = (
            f" One step before, the loss was {measured['loss'][at - 1]:.4g} and the gradient "
            f"norm {measured['grad_norm'][at - 1]:.4g}."
        )
    if "loss_scale" in measured:
        before = (
            " The loss scale of float16 can't get smaller: train in bfloat16 (model.dtype), with "
            "a smaller optim.learning_rate or with optim.clip_norm."
        )
    label = {"grad_norm": "the gradient norm", "loss": "the loss"}.get(name, name)
    raise DivergedError(first_step + at, label, float(measured[name][at]), before)


class StopRequest:
    """Whether a signal has asked to stop; the loop looks at it between dispatches."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal; the second Ctrl-C ends the process at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a `StopRequest` while a run trains."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {
        number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
