"""What trials came to: one record a trial, the best of them, and the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdlopt.executor.messages import RUNNING, PopulationTrained, Row, TrialResult
from jdlopt.memory import LESS_MEMORY

STATES = ("done", "pruned", "infeasible")
"""Of a trial that has ended."""
LEFT_OUT = "left out"
"""The state of a trial that did not fit in memory: it has not ended, and is trained again."""
FOREIGN = "another program ended it"
"""Why a trial that is not jdlopt's own has no value."""
SHOWN = 20
"""Numbers of trials that are listed."""
Record = Mapping[str, Any]
"""A study, a trial or a key of the space, as ``study.json`` has it."""


def infeasible(reason: str) -> dict[str, object]:
    """Returns the record of a trial that was not trained, and why it has no value."""
    return {
        "state": "infeasible", "values": None, "interval": None, "trainings": [], "metrics": {},
        "steps": 0, "reason": reason,
    }  # fmt: skip


def left_out(reason: str) -> dict[str, object]:
    """Returns what is known of a trial that did not fit in memory; it is no result."""
    return {"state": LEFT_OUT, "values": None, "reason": reason}


def left_out_in_words(study: Record) -> str | None:
    """Says which trials of a study did not fit in memory, and what to do; None if all did.

    Example:
      >>> rows = [{"number": 3, **left_out("did not fit in memory: MemoryError")}]
      >>> print(left_out_in_words({"trials": rows})[:66])
      1 trial was left out (3): did not fit in memory: MemoryError. The
    """
    rows = [row for row in study["trials"] if row["state"] == LEFT_OUT]
    if not rows:
        return None
    numbers = ", ".join(str(row["number"]) for row in rows[:SHOWN])
    numbers += f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    were = "trial was" if len(rows) == 1 else "trials were"
    return (
        f"{len(rows)} {were} left out ({numbers}): {str(rows[0]['reason']).rstrip('.')}. The same "
        f"command tries again. {LESS_MEMORY}"
    )


def of_trial(
    trainings: Sequence[TrialResult],
    population: PopulationTrained,
    objectives: Sequence[Mapping[str, str]],
    monitor: str,
) -> dict[str, object]:
    """Returns a trial's record from how its trainings, one a seed and fold, ended.

    A trial is infeasible if one of them diverged. Its values are means over them; those of metrics
    are taken at the best evaluation of each.

    Args:
      trainings: with the trial's number.
      population: that they were trained in.
      objectives: name and direction of each.
      monitor: the metric that ``value`` of a training is.
    """
    bad = [one for one in trainings if one.status in ("diverged", "failed")]
    pruned = [one for one in trainings if one.status in ("pruned", RUNNING)]
    state = "infeasible" if bad else "pruned" if pruned else "done"
    reason = next((one.reason for one in [*bad, *pruned] if one.reason), None)
    at_best: dict[str, list[float]] = {}
    for one in trainings:
        for name, value in _best_row(one).items():
            if "/" in name and isinstance(value, int | float):
                at_best.setdefault(name, []).append(value)
    values: list[float] = []
    intervals: list[list[float]] = []
    finite = True
    for objective in objectives:
        each = _each(objective["name"], trainings, population, monitor)
        known = [value for value in each if value is not None and math.isfinite(value)]
        if len(known) < len(each):
            finite = False
            break
        values.append(float(np.mean(known)))
        intervals.append(interval(known))
    if not finite and state == "done":
        state, reason = "infeasible", f"{objective['name']} is not a finite number"
    step_seconds = population.step_seconds
    bounded = finite and all(math.isfinite(end) for both in intervals for end in both)
    return {
        "state": state,
        "values": values if finite and state != "infeasible" else None,
        "interval": intervals if bounded and len(trainings) > 1 else None,
        "trainings": [
            {
                "seed": one.seed,
                "fold": one.fold,
                "value": one.value,
                "best_step": one.best_step,
                "last_step": one.steps,
            }
            for one in trainings
        ],
        "metrics": {name: float(np.mean(some)) for name, some in at_best.items()},
        "steps": max(one.steps for one in trainings),
        "total_steps": population.total_steps,
        "n_params": population.n_params,
        "step_seconds": step_seconds,
        "seconds": (step_seconds or 0.0) * sum(one.steps for one in trainings),
        "structure": population.fingerprint,
        "reason": reason,
    }


def _best_row(training: TrialResult) -> Row:
    return next((row for row in training.rows if row["step"] == training.best_step), {})


def _each(
    name: str, trainings: Sequence[TrialResult], population: PopulationTrained, monitor: str
) -> list[float | None]:
    """An objective of each training."""
    if name == "n_params":
        return [population.n_params] * len(trainings)
    if name == "step_seconds":
        return [population.step_seconds] * len(trainings)
    return [one.value if name == monitor else _best_row(one).get(name) for one in trainings]


def interval(values: Sequence[float], level: float = 0.95) -> list[float]:
    """Returns Student's t interval of a mean: ``mean ± t · s / √n``; of one value, that twice."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return [mean, mean]
    from scipy import stats  # takes a second to import

    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return [mean - half, mean + half]


def best(trials: Sequence[Record], objectives: Sequence[Mapping[str, str]]) -> list[int]:
    """Returns the finished trials' numbers, best first; of several objectives, by the first."""
    sign = -1.0 if objectives[0]["direction"] == "maximize" else 1.0
    done = [trial for trial in trials if trial["state"] == "done" and trial["values"]]
    return [t["number"] for t in sorted(done, key=lambda t: (sign * t["values"][0], t["number"]))]


def pareto(trials: Sequence[Record], objectives: Sequence[Mapping[str, str]]) -> list[int]:
    """Returns the trials that no other is at least as good as in all objectives and better in one.

    Example:
      >>> found = [{"number": i, "state": "done", "values": v} for i, v in
      ...          enumerate([[0.9, 5.0], [0.8, 3.0], [0.7, 4.0]])]
      >>> pareto(found, [{"direction": "maximize"}, {"direction": "minimize"}])
      [0, 1]
    """
    signs = np.array([-1.0 if one["direction"] == "maximize" else 1.0 for one in objectives])
    done = [trial for trial in trials if trial["state"] == "done" and trial["values"]]
    if not done:
        return []
    costs = np.array([trial["values"] for trial in done]) * signs
    front = []
    for index, cost in enumerate(costs):
        beaten = (costs <= cost).all(axis=1) & (costs < cost).any(axis=1)
        if not beaten.any():
            front.append(done[index]["number"])
    return front
