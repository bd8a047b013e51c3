"""What is in flight on the device: dispatched steps and evaluations that nobody has read yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from jdlopt.train.evaluate import Evaluator
from jdlopt.train.goodput import EVALUATION, Stopwatch
from jdlopt.train.state import Weights
from jdlopt.train.tracker import Tracker

IN_FLIGHT = 3
"""Dispatches that may be in flight: enough that the host logs one epoch while the next one trains,
few enough that a signal, which waits for them, is answered soon."""


@dataclass(frozen=True)
class Snapshot:
    """What an evaluation was made with, kept in case that it turns out the best."""

    step: int
    weights: Weights


class Pending:
    """Dispatches in order, and the snapshot of the best evaluation among those read.

    Values come back asynchronously; `read` gives them to the tracker in the order of the steps.

    Args:
      tracker: takes the values.
      evaluator: evaluates snapshots on the validation split.
      mesh: the devices.
      opened: closes the thread that evaluations may be dispatched from.
      stopwatch: counts what evaluations take, as far as they are waited for.

    Attributes:
      best: the snapshot of the best evaluation read, None before there is one.
    """

    def __init__(
        self,
        tracker: Tracker,
        evaluator: Evaluator,
        mesh: Mesh,
        opened: ExitStack,
        stopwatch: Stopwatch,
    ):
        self.tracker, self.evaluator, self._stopwatch = tracker, evaluator, stopwatch
        self.best: Snapshot | None = None
        self._beside = opened.enter_context(ThreadPoolExecutor(1)) if _may_overlap(mesh) else None
        self._waiting: deque[Callable[[], None]] = deque()
        self._evaluations = 0

    def add_steps(self, first: int, values: dict[str, jax.Array], count: int) -> None:
        """Notes the values of ``count`` steps from ``first + 1`` on; what follows is padding."""

        def read() -> None:
            measured = {name: np.asarray(value)[:count] for name, value in values.items()}
            self.tracker.add_steps(first, measured)

        self._waiting.append(read)

    def add_evaluation(self, snapshot: Snapshot) -> None:
        """Dispatches the evaluation of a snapshot on the validation split."""
        work = partial(self.evaluator.dispatch, "validation", snapshot.weights)
        with self._stopwatch.during(EVALUATION, "handing over an evaluation"):
            collected = self._beside.submit(work) if self._beside else work()

        def read() -> None:
            self._evaluations -= 1
            with self._stopwatch.during(EVALUATION, "an evaluation"):
                known = collected.result() if isinstance(collected, Future) else collected
                found = self.evaluator.finish("validation", known)
            if self.tracker.add_evaluation(snapshot.step, found):
                self.best = snapshot

        self._evaluations += 1
        self._waiting.append(read)

    def read(self, wait: bool = True) -> None:
        """Reads values that have come back: all of them, or those beyond what may be in flight.

        Raises:
          DivergedError: a value is not finite; the tracker has those before it.
        """
        while self._waiting and (wait or len(self._waiting) > IN_FLIGHT):
            self._waiting.popleft()()

    def may_end_training(self) -> bool:
        """Says whether an evaluation in flight could use patience up: then it is waited for.

        So a run stops at the same step however fast its values come back.
        """
        return self._evaluations > 0 and self.tracker.may_end(self._evaluations)


def _may_overlap(mesh: Mesh) -> bool:
    """Whether evaluations may be dispatched from a thread of their own.

    XLA's CPU client runs what one thread dispatches in turn, so that an evaluation would hold up
    the next steps while other cores are idle. An accelerator runs all in turn anyway; with several
    devices, programs that communicate have to be dispatched everywhere in the same order.
    """
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
