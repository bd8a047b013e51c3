"""What one training came to, and the line of a file that keeps it."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jdlopt.executor.messages import DIVERGED, Failed, PopulationTrained, TrialResult
from jdlopt.study import schema
from jdlopt.train import disk

FAILED = "failed"
"""The status of a training that came to nothing for a reason that may be gone the next time."""


class Training(NamedTuple):
    """What one config came to with one seed.

    Attributes:
      seed: of the run.
      status: as of a population's trial, or `FAILED`.
      reason: why, where it did not end well.
      metrics: at the best evaluation, by name; empty where there is none.
      steps: updates made.
      n_params: numbers in the parameters.
      step_seconds: of one update, evaluations included.
      rows: the logged lines.
    """

    seed: int
    status: str
    reason: str | None
    metrics: dict[str, float]
    steps: int
    n_params: int | None
    step_seconds: float | None
    rows: list[dict[str, Any]]


FIELDS: Mapping[str, schema.Holds] = {
    "seed": schema.is_whole,
    "status": schema.is_text,
    "reason": schema.or_none(schema.is_text),
    "metrics": schema.is_metrics,
    "steps": schema.is_whole,
    "n_params": schema.or_none(schema.is_whole),
    "step_seconds": schema.or_none(schema.is_number),
    "rows": schema.list_of(schema.is_object),
}
"""What a line of ``trainings/*.jsonl`` holds."""


def line_of(one: Training) -> str:
    """Returns a training as a line of JSON with a checksum: a bit that flips must be seen."""
    held = disk.as_json(one._asdict())
    return json.dumps({"crc32": _sum(held), "training": held}) + "\n"


def read_line(line: bytes) -> Training | None:
    """Returns the training that `_line` wrote; None if the line is not as it was written."""
    try:
        record = json.loads(line)
        held = record["training"]
        if record["crc32"] != _sum(held) or not all(
            name in held and holds(held[name]) for name, holds in FIELDS.items()
        ):
            return None
        # JSON has no word for what is no number
        metrics = {k: math.nan if v is None else float(v) for k, v in held["metrics"].items()}
        return Training(**held | {"metrics": metrics})
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return None


def _sum(held: object) -> int:
    return zlib.crc32(json.dumps(held, sort_keys=True).encode())


def training_of(one: TrialResult, facts: PopulationTrained) -> Training:
    """Returns what a trial of a population came to, with the metrics of its best evaluation."""
    rows = [row for row in one.rows if row["step"] == one.best_step]
    metrics = {
        name: float(value)
        for name, value in (rows[0] if rows else {}).items()
        if "/" in name and isinstance(value, int | float)
    }
    return Training(
        seed=one.seed,
        status=one.status,
        reason=one.reason,
        metrics=metrics,
        steps=one.steps,
        n_params=facts.n_params,
        step_seconds=facts.step_seconds,
        rows=list(one.rows),
    )


def failed_training(seed: int, failure: Failed) -> Training:
    """Returns what is known of a training that failed."""
    status = DIVERGED if failure.kind == DIVERGED else FAILED
    return Training(seed, status, failure.message, {}, 0, None, None, [])
