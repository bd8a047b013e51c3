"""A trial of a population, as it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jdlopt.executor.messages import RUNNING
from jdlopt.train.tracker import Tracker

DONE, EARLY, PRUNED, DIVERGED = "done", "stopped early", "pruned", "diverged"


@dataclass
class Trial:
    """A trial of a population as it trains: a seed of it and, with cross-validation, a fold.

    Attributes:
      number: the trial's.
      seed: its seed, as in ``config.seed``.
      fold: which fold, or None.
      params: its floats that differ from the structure's config, by dotted key.
      start: the file of weights that it starts from; None: as the config says.
      keep: the file that its best weights are written to, or None.
      status: ``running``, or how it ended.
      reason: why, where it did not end well.
      steps: updates made.
      rows: its logged lines, as a run's ``metrics.jsonl`` has them.
      tracker: what is known of it from the values that came back.
    """

    number: int
    seed: int
    fold: int | None
    params: Mapping[str, Any]
    start: Path | None = None
    keep: Path | None = None
    status: str = RUNNING
    reason: str | None = None
    steps: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    tracker: Tracker = field(init=False)

    def begin(self, tracker: Tracker) -> None:
        """Begins anew, with nothing of it known."""
        self.status, self.reason, self.steps = RUNNING, None, 0
        self.rows, self.tracker = [], tracker

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it."""
        return {
            "number": self.number,
            "seed": self.seed,
            "fold": self.fold,
            "status": self.status,
            "reason": self.reason,
            "steps": self.steps,
            "rows": self.rows,
            "tracker": self.tracker.to_dict(),
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Goes on from what `to_dict` returned."""
        self.status, self.reason = record["status"], record["reason"]
        self.steps, self.rows = record["steps"], list(record["rows"])
        self.tracker.restore(record["tracker"])
