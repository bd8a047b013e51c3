"""What is known of one training as its values come back: lines, the best evaluation, divergence.

`fit` has one `Tracker`, a population one for each of its trials. It looks at values and config
alone: how steps were cut into dispatches, and when a training was stopped and resumed, change no
line, no best evaluation and no step at which patience ends.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from jdlopt.data.fields import BOTH
from jdlopt.errors import DivergedError
from jdlopt.metrics import higher_is_better
from jdlopt.models.pruning_plan import PruneFields, settled_after
from jdlopt.train.experiment import Experiment

LEARNING_RATE = "learning_rate"
"""The one value whose line says what it was in the last step, not its mean."""
OF_ALL_STEPS = ("skipped", "loss_scale")
"""Values that a skipped step of float16 training has too; a line's other means leave it out."""
Line = dict[str, float]
"""A logged line: ``epoch``, means over the steps since the line before, an evaluation's metrics."""


class UndefinedMetricWarning(UserWarning):
    """The monitored metric was not a number at some evaluations."""


@dataclass(frozen=True)
class Best:
    """The best evaluation so far, and how many have come since.

    A metric may be undefined (NaN): AUC where the split has one class. Such an evaluation is never
    better than another; while none is defined, the last one stands for the best, and patience does
    not run. Nor does it while weights are still being pruned: evaluations up to ``first`` are of
    another model than the one that training ends with, and the last of them stands for the best.
    Where the validation split is trained on, ``first`` is the last step of all.

    Attributes:
      metric: the monitored metric.
      higher: whether more of it is better.
      step: the step of the best evaluation, -1 before the first.
      value: its value, NaN while none is defined.
      since: evaluations since then that were not better.
      seen: evaluations in all.
      undefined: how many of them were.
      first: the first step whose evaluation may be the best.
    """

    metric: str
    higher: bool
    step: int = -1
    value: float = math.nan
    since: int = 0
    seen: int = 0
    undefined: int = 0
    first: int = 0

    def after(self, step: int, value: float) -> Best:
        """Returns the record after one more evaluation."""
        counted = replace(self, seen=self.seen + 1, undefined=self.undefined + math.isnan(value))
        if math.isnan(self.value) or self.step < self.first:
            return replace(counted, step=step, value=value)
        if value > self.value if self.higher else value < self.value:
            return replace(counted, step=step, value=value, since=0)
        return replace(counted, since=self.since + 1)

    def note(self) -> str | None:
        """Says what was undefined and which evaluation is used then; None if nothing was."""
        if not self.undefined:
            return None
        if self.undefined < self.seen:
            return (
                f"{self.metric} was undefined (NaN) at {self.undefined} of {self.seen} "
                "evaluations, which can't be the best."
            )
        return (
            f"{self.metric} was undefined (NaN) at every evaluation: there is no best one, and the "
            "last is used. Monitor another metric (train.monitor), or look whether the validation "
            "split has what this one needs, such as examples of every class."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON can hold it (NaN as None)."""
        return {**asdict(self), "value": None if math.isnan(self.value) else self.value}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Best:
        """Returns the record that `to_dict` wrote."""
        value = record["value"]
        return Best(**{**record, "value": math.nan if value is None else value})


class Tracker:
    """Takes the values of one training in the order of its steps; lines, best and patience.

    What belongs to a line that is not finished is part of `to_dict`, and so of a checkpoint.

    Args:
      monitor: the metric that says which evaluation is best, such as ``validation/accuracy``.
      total_steps: updates in the whole training.
      eval_every: steps between evaluations.
      log_every: steps between lines.
      batch_size: examples in a step.
      examples: in the training split; an epoch has seen so many.
      patience: evaluations without a better one that end the training, or None.
      first: the first step whose evaluation may be the best.
    """

    def __init__(
        self,
        monitor: str,
        *,
        total_steps: int,
        eval_every: int,
        log_every: int,
        batch_size: int,
        examples: int,
        patience: int | None = None,
        first: int = 0,
    ):
        self.total_steps, self.eval_every, self.log_every = total_steps, eval_every, log_every
        self.batch_size, self.examples, self.patience = batch_size, examples, patience
        self.best = Best(monitor, higher_is_better(monitor.partition("/")[2]), first=first)
        self.newest: Line = {}
        self._sums: dict[str, float] = {}
        self._count = 0
        self._last: dict[str, float] = {}
        self._waiting: tuple[int, Line] | None = None
        self._lines: deque[tuple[int, Line]] = deque()

    # --- what happens at which steps -------------------------------------------------------------

    def is_evaluated(self, steps: object) -> Bool[np.ndarray, " n"]:
        """Says after which steps the validation split is evaluated."""
        steps = np.asarray(steps)
        return (steps % self.eval_every == 0) | (steps == self.total_steps)

    def is_logged(self, steps: object) -> Bool[np.ndarray, " n"]:
        """Says which steps have a line: each ``log_every``-th, each evaluation's, the last."""
        steps = np.asarray(steps)
        regular = (steps % self.log_every == 0) | self.is_evaluated(steps)
        return regular & (steps > 0)

    # --- taking values ---------------------------------------------------------------------------

    def add_steps(self, first: int, measured: Mapping[str, np.ndarray]) -> None:
        """Adds the values of steps ``first + 1`` and on, each array [steps].

        Raises:
          DivergedError: a value is not finite; those of the steps before it are added.
        """
        good = _finite_steps(measured)
        numbers = np.arange(first + 1, first + good + 1)
        begin = 0
        for end in [*(np.flatnonzero(self.is_logged(numbers)) + 1), good]:
            self._add({name: values[begin:end] for name, values in measured.items()})
            if end > begin and self.is_logged(numbers[end - 1]):
                self._close_line(int(numbers[end - 1]))
            begin = end
        if good < _length(measured):
            at = {name: float(values[good]) for name, values in measured.items()}
            raise _diverged(first + good + 1, at, self._last)

    def _add(self, measured: Mapping[str, np.ndarray]) -> None:
        if not _length(measured):
            return
        # one by one: a sum's rounding must not depend on how the steps were cut into dispatches
        for name, values in measured.items():
            total = self._sums.get(name, 0.0)
            for value in values.tolist():
                total += value
            self._sums[name], self._last[name] = total, float(values[-1])
        self._count += _length(measured)

    def _close_line(self, step: int) -> None:
        made = self._count - self._sums.get("skipped", 0)
        counts = {name: self._count if name in OF_ALL_STEPS else made for name in self._sums}
        line = {
            f"train/{name}": total / counts[name]
            for name, total in self._sums.items()
            if counts[name] and name != LEARNING_RATE
        }
        line[LEARNING_RATE] = self._last.get(LEARNING_RATE, 0.0)
        self._sums, self._count = {}, 0
        if self.is_evaluated(step):
            self._waiting = (step, line)
        else:
            self._finish_line(step, line)

    def _finish_line(self, step: int, values: Line) -> None:
        line = {"epoch": round(step * self.batch_size / self.examples, 4), **values}
        self.newest = {**self.newest, **line}
        self._lines.append((step, line))

    def add_evaluation(self, step: int, values: Mapping[str, Any]) -> bool:
        """Completes the line of an evaluation's step; returns whether it is the one to keep."""
        assert self._waiting is not None and self._waiting[0] == step
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        self._finish_line(step, {**self._waiting[1], **numbers})
        self._waiting = None
        self.best = self.best.after(step, values[self.best.metric])
        return self.best.step == step

    def take_lines(self) -> list[tuple[int, Line]]:
        """Returns the lines that are complete, each once, with their steps."""
        found = list(self._lines)
        self._lines.clear()
        return found

    # --- patience --------------------------------------------------------------------------------

    def has_ended(self) -> bool:
        """Says whether patience has run out."""
        return self.may_end(0)

    def may_end(self, evaluations: int) -> bool:
        """Says whether patience could run out with so many more evaluations."""
        return self.patience is not None and self.best.since + evaluations >= self.patience

    # --- going on later --------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must keep, once all values in flight were added."""
        return {
            "best": self.best.to_dict(),
            "newest": self.newest,
            "sums": self._sums,
            "count": self._count,
            "last": self._last,
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Goes on from what `to_dict` returned."""
        # a training that goes on may be longer than the one that wrote the record
        self.best = replace(Best.from_dict(record["best"]), first=self.best.first)
        self.newest = dict(record["newest"])
        self._sums, self._count = dict(record["sums"]), record["count"]
        self._last = dict(record["last"])


def make_tracker(
    experiment: Experiment, examples: int, prune: PruneFields | None = None
) -> Tracker:
    """Returns the tracker of one training of an experiment.

    Args:
      experiment: what is trained.
      examples: in the training split, which may be a fold's.
      prune: the training's own ``model.prune``, where that is not the experiment's.
    """
    prune = experiment.config.model.prune if prune is None else prune
    seen = experiment.config.data.train_on == BOTH  # validation can't say which step was best
    settled = settled_after(vars(prune), experiment.total_steps)
    return Tracker(
        experiment.monitor,
        total_steps=experiment.total_steps,
        eval_every=experiment.eval_every,
        log_every=experiment.log_every,
        batch_size=experiment.config.data.batch_size,
        examples=examples,
        patience=experiment.config.train.patience,
        first=experiment.total_steps if seen else settled,
    )


def _length(measured: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(measured.values())))


def _finite_steps(measured: Mapping[str, np.ndarray]) -> int:
    """How many steps come before the first one with a value that is not finite."""
    finite = np.logical_and.reduce([np.isfinite(values) for values in measured.values()])
    return len(finite) if finite.all() else int(np.argmin(finite))


def _diverged(step: int, values: Mapping[str, float], before: Mapping[str, float]) -> DivergedError:
    """The error that names what blew up first, with the values of the step before."""
    name = next(
        name for name in ("loss", "grad_norm", *values)
        if name in values and not math.isfinite(values[name])
    )  # fmt: skip
    detail = ""
    if {"loss", "grad_norm"} <= before.keys():
        detail = (
            f" One step before, the loss was {before['loss']:.4g} and the gradient "
            f"norm {before['grad_norm']:.4g}."
        )
    if "loss_scale" in values:
        detail = (
            " The loss scale of float16 can't get smaller: train in bfloat16 (model.dtype), with "
            "a smaller optim.learning_rate or with optim.clip_norm."
        )
    label = {"grad_norm": "the gradient norm", "loss": "the loss"}.get(name, name)
    return DivergedError(step, label, values[name], detail)
