"""From per-step values and evaluations to logged lines: means over the steps since the last."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

LEARNING_RATE = "learning_rate"
"""The one value whose line says what it was in the last step, not its mean."""
OF_ALL_STEPS = ("skipped", "loss_scale")
"""Values that a skipped step of float16 training has too; a line's other means leave it out."""


class Meter:
    """Collects values in the order of their steps and hands out complete lines.

    A line at an evaluation's step waits for the evaluation. What belongs to the next line is part
    of a checkpoint, so that a resumed run writes the lines that the uninterrupted one does.
    """

    def __init__(self, log_every: int, eval_every: int, total_steps: int):
        self.log_every, self.eval_every, self.total_steps = log_every, eval_every, total_steps
        self.sums: dict[str, float] = {}
        self.learning_rate = 0.0
        self.count = 0
        self.newest: dict[str, float] = {}
        self._waiting: tuple[int, dict[str, float]] | None = None
        self._lines: deque[tuple[int, dict[str, float]]] = deque()

    def is_logged(self, steps: Any) -> Bool[np.ndarray, " n"]:
        """Says which steps have a line: each ``log_every``-th, each evaluation's, the last."""
        steps = np.asarray(steps)
        regular = (steps % self.log_every == 0) | self.is_evaluated(steps)
        return regular & (steps > 0)

    def is_evaluated(self, steps: Any) -> Bool[np.ndarray, " n"]:
        """Says after which steps the validation split is evaluated."""
        steps = np.asarray(steps)
        return (steps % self.eval_every == 0) | (steps == self.total_steps)

    def steps(self, first: int, measured: Mapping[str, np.ndarray]) -> None:
        """Adds the values of steps ``first + 1`` and on, each array [steps]."""
        length = len(next(iter(measured.values())))
        numbers = np.arange(first + 1, first + length + 1)
        begin = 0
        for end in [*(np.flatnonzero(self.is_logged(numbers)) + 1), length]:
            part = {name: values[begin:end] for name, values in measured.items()}
            self._add(part, int(end - begin))
            if end > begin and self.is_logged(numbers[end - 1]):
                self._close_line(int(numbers[end - 1]))
            begin = end

    def _add(self, measured: Mapping[str, np.ndarray], count: int) -> None:
        # one by one: a sum's rounding must not depend on how the steps were cut into dispatches
        for name, values in measured.items():
            if name == LEARNING_RATE:
                self.learning_rate = float(values[-1]) if count else self.learning_rate
                continue
            total = self.sums.get(name, 0.0)
            for value in values.tolist():
                total += value
            self.sums[name] = total
        self.count += count

    def _close_line(self, step: int) -> None:
        made = self.count - self.sums.get("skipped", 0)
        counts = {name: self.count if name in OF_ALL_STEPS else made for name in self.sums}
        line = {
            f"train/{name}": total / counts[name]
            for name, total in self.sums.items()
            if counts[name]
        }
        line[LEARNING_RATE] = self.learning_rate
        self.sums, self.count = {}, 0
        if self.is_evaluated(step):
            self._waiting = (step, line)
        else:
            self._lines.append((step, line))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Completes the line of an evaluation's step."""
        assert self._waiting is not None and self._waiting[0] == step
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        self._lines.append((step, {**self._waiting[1], **numbers}))
        self._waiting = None

    def lines(self) -> list[tuple[int, dict[str, float]]]:
        """Returns the lines that are complete and were not handed out before."""
        found = list(self._lines)
        self._lines.clear()
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must keep, once all values in flight were added."""
        return {"sums": self.sums, "count": self.count, "newest": self.newest}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Goes on from what `to_dict` returned."""
        self.sums, self.count = dict(record["sums"]), record["count"]
        self.newest = dict(record["newest"])
