"""Readings of chance: how much of the best is luck, and whether trials differ at all.

The best of many trials is the one that is good *and* lucky on the validation examples: its value is
too high by about the expected maximum of the noise among those that might have been the best.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from jdlopt.study.differences import late_noise
from jdlopt.study.readings.reading import FEW, Found, Reading, curve, make

MUCH = 0.15
"""From this share of the expected error on, luck is warned of."""
SHARES = (
    "accuracy", "subset_accuracy", "balanced_accuracy", "precision", "recall", "f1", "hamming_loss",
    "average_precision", "label_ranking_average_precision",
)  # fmt: skip
"""Metrics that are shares of examples, or have at least a share's error; how their names begin."""


@functools.cache
def expected_maximum(count: int) -> float:
    """Returns the expected maximum of so many independent standard normal numbers.

    It is the integral of ``z · n · φ(z) · Φ(z)^(n−1)`` over z (David and Nagaraja, "Order
    Statistics", 2003, section 3.1).

    Example:
      >>> round(expected_maximum(2), 4), round(expected_maximum(100), 3)
      (0.5642, 2.508)
    """
    from scipy.special import ndtr  # takes a moment to import

    if count < 2:
        return 0.0
    z = np.linspace(-10, 10, 4001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(z * count * density * ndtr(z) ** (count - 1), z))


def standard_error(metric: str, value: float, rows: int) -> float | None:
    """Returns about by how much a metric's value varies with the examples that it is measured on.

    Of a share p, ``√(p (1 − p) / n)`` with two examples added on either side (Agresti and Coull,
    1998); of the area under the ROC curve, after Hanley and McNeil (1982) with classes of equal
    size; of errors, and R², as if a model's errors were normal; of a loss, as if the losses of
    examples were exponential. Where examples differ more than that, the error is larger.

    Args:
      metric: its name, without the split.
      value: of the metric.
      rows: examples that it is measured on.

    Returns:
      The standard error; None of a metric for which it is not known.

    Example:
      >>> round(standard_error("accuracy", 0.9, 100), 3), round(standard_error("rmse", 2.0, 50), 2)
      (0.031, 0.2)
    """
    if rows < 1 or not math.isfinite(value):
        return None
    if metric in ("loss", "log_loss"):
        return abs(value) / math.sqrt(rows)
    spread = {"mse": math.sqrt(2), "rmse": math.sqrt(0.5), "mae": math.sqrt(math.pi / 2 - 1)}
    if metric in spread:
        return abs(value) * spread[metric] / math.sqrt(rows)
    if metric == "r2":
        return max(0.0, 1 - value) * math.sqrt(2 / rows)
    if not 0 <= value <= 1:
        return None
    if metric == "roc_auc":
        each = rows / 2
        one, two = value / (2 - value), 2 * value**2 / (1 + value)
        variance = value * (1 - value) + (each - 1) * (one + two - 2 * value**2)
        return math.sqrt(max(variance, 0.0)) / each
    if metric.startswith(SHARES) or (metric.startswith("top_") and metric.endswith("_accuracy")):
        share = (value * rows + 2) / (rows + 4)
        return math.sqrt(share * (1 - share) / (rows + 4))
    return None


def of_the_best(costs: Sequence[float], error: float) -> tuple[float, int]:
    """Returns how much of the best is luck, and among how many trials it was found.

    It is ``σ E[max of k]``, where k trials lie within two standard errors σ of the best: others
    could not have been the best by chance. It is no more than what the best is ahead of the mean of
    the trials that may be equal: trials err alike on the same examples, and then chance parts them
    by less.

    Args:
      costs: of the trials, less being better.
      error: the standard error of one.
    """
    found = np.sort(np.asarray(costs, float))
    close = int((found <= found[0] + 2 * error).sum())
    reach = 2 * expected_maximum(len(found)) * error
    ahead = float(found[found <= found[0] + reach].mean() - found[0])
    return min(error * expected_maximum(close), ahead), close


def rows_of(found: Found) -> int | None:
    """Returns how many examples a trial's value is measured on; None if that is not known."""
    data = found.study.get("data")
    splits = data.get("splits") if isinstance(data, dict) else None
    names = ("train", "validation") if found.study.get("folds") else ("validation",)
    try:
        counts = [splits[name]["count"] for name in names]  # type: ignore[index]
    except (KeyError, TypeError):
        return None
    return sum(counts) if all(type(count) is int for count in counts) else None


def _error(found: Found) -> tuple[float, int] | None:
    """The standard error of the best trial's value, and on how many examples it is measured."""
    split, _, metric = found.metric.partition("/")
    rows = rows_of(found)
    if split != "validation" or not rows or not found.trials:
        return None
    error = standard_error(metric, found.trials[0]["values"][0], rows)
    return (error, rows) if error else None


def luck(found: Found) -> list[Reading]:
    """How much of the best trial's value is luck."""
    known = _error(found)
    if known is None or len(found.trials) < FEW:
        return []
    error, rows = known
    stopped = [t for t in found.study["trials"] if t["state"] == "pruned" and t.get("values")]
    costs = [found.cost(trial) for trial in (*found.trials, *stopped)]
    amount, close = of_the_best([cost for cost in costs if math.isfinite(cost)], error)
    if amount <= 0:
        return []
    best = found.trials[0]["values"][0]
    lacks = abs(1 - best) if found.sign < 0 else abs(best)
    folds = found.study.get("folds")
    where = f"{rows:,} rows over {folds} folds" if folds else f"{rows:,} validation rows"
    numbers: dict[str, object] = {
        "luck": amount,
        "standard_error": error,
        "rows": rows,
        "trials": close,
    }
    text = (
        f"About {amount:.2g} of the best {found.metric}, {best:.4g}, is luck: {close} of "
        f"{len(costs)} trials lie within two standard errors of it, of {error:.2g} each on {where}."
    )
    if amount < MUCH * (lacks + amount):
        return [make("luck", "good", text, "", **numbers)]
    honest = "the test metrics of the best trials in trials/ are free of it"
    hint = f"Search with --folds=5 in another directory, so that all rows judge; {honest}."
    if folds:
        hint = f"More trials can't tell more on so few rows; {honest}."
    return [make("luck", "warning", text, hint, **numbers)]


def equal(found: Found) -> list[Reading]:
    """Whether trials differ at all, or by no more than chance makes equal ones differ."""
    count = len(found.trials)
    if count < 2 or not found.metric.startswith("validation/"):
        return []
    costs = [found.cost(trial) for trial in found.trials]
    span = max(costs) - min(costs)
    if span == 0:
        value = found.trials[0]["values"][0]
        text = f"All {count} finished trials have the same {found.metric}, {value:.4g}."
        hint = (
            "Nothing that was searched matters to it, or it is too coarse to show: name another "
            "--objective, such as validation/loss, or search other keys."
        )
        return [make("equal", "warning", text, hint, span=span)]
    known = _error(found)
    noises = [late_noise(curve(found, t["number"], found.metric)) for t in found.best]
    moved = [noise for noise in noises if noise is not None]
    noise = max(known[0] if known else 0.0, float(np.median(moved)) if moved else 0.0)
    by_chance = 2 * expected_maximum(count) * noise
    if count < FEW or span > by_chance:
        return []
    text = (
        f"The {count} finished trials lie within {span:.2g}; equal ones would lie within "
        f"{by_chance:.2g} by chance. Nothing says that one is better than another."
    )
    hint = "Take the cheapest. Widen the space, or measure more exactly: --folds, --repeats."
    return [make("equal", "warning", text, hint, span=span, by_chance=by_chance)]
