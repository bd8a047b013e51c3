"""Whether two trials differ by more than chance: over their seeds or folds, or by their noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.05
"""Below this probability, a difference is taken for one."""


class Difference(NamedTuple):
    """What can be said of two trials.

    Attributes:
      verdict: ``apart``; ``same``, if chance alone may have made it; ``unmeasured``, if it is
        larger than one training's noise, but how much seeds differ is not known; ``unknown``.
      words: the evidence, as the end of a sentence.
      numbers: ``difference`` and what it is compared with.
    """

    verdict: str
    words: str
    numbers: dict[str, Any]


def compare(
    better: Mapping[str, Any], worse: Mapping[str, Any], sign: float, noise: float | None
) -> Difference:
    """Compares the first objective of two trials.

    With repeats, by Welch's t test; with folds, by the t test over the folds' differences, whose
    variance is corrected for folds that share their training data (Nadeau and Bengio, 2003).
    Without either, with the noise of one training from evaluation to evaluation.

    Args:
      better, worse: records of trials.
      sign: -1.0 if the objective is maximised, else 1.0.
      noise: of the better one late in its training, if it is known.
    """
    difference = sign * (worse["values"][0] - better["values"][0])
    numbers: dict[str, Any] = {"difference": difference}
    tested = _test(better.get("trainings") or [], worse.get("trainings") or [], sign)
    if tested is not None:
        name, p_value, low, high = tested
        numbers["p_value"] = p_value
        if p_value < LEVEL:
            words = f"{difference:.3g}, larger than chance makes it ({name}, p = {p_value:.2g})"
            return Difference("apart", words, numbers)
        words = f"{difference:.3g}, with the 95 % interval {low:.3g} to {high:.3g} ({name})"
        return Difference("same", words, numbers)
    if difference == 0:
        return Difference("same", "0: they are equal", numbers)
    if noise is None:
        words = f"{difference:.3g}; what chance does to it was not measured"
        return Difference("unknown", words, numbers)
    numbers["noise"] = noise
    words = f"{difference:.3g}, and one training's noise from evaluation to evaluation {noise:.2g}"
    return Difference("unmeasured" if difference > 2 * noise else "same", words, numbers)


def late_noise(values: np.ndarray) -> float | None:
    """Returns how much a metric moves from evaluation to evaluation in a training's second half.

    It is the standard deviation of the differences over ``√2``: they hold the noise of two
    evaluations and hardly any of the trend. None of fewer than four values.

    Example:
      >>> round(late_noise(np.array([0, 0, 0, 0, 1.0, -1.0, 1.0, -1.0])), 3)
      1.333
    """
    late = values[len(values) // 2 :]
    if len(late) < 4:
        return None
    return float(np.std(np.diff(late)) / math.sqrt(2))


def _test(
    better: Sequence[Mapping[str, Any]], worse: Sequence[Mapping[str, Any]], sign: float
) -> tuple[str, float, float, float] | None:
    """The test's name, its p value and the interval of the difference; None without repeats."""
    values = [
        {(one.get("seed"), one.get("fold")): sign * one["value"] for one in some if _finite(one)}
        for some in (better, worse)
    ]
    if min(map(len, values)) < 2:
        return None
    folds = {fold for _, fold in values[0]} - {None}
    paired = sorted(set(values[0]) & set(values[1]))
    if len(folds) > 1 and len(paired) > 1:
        pairs = np.array([values[1][key] - values[0][key] for key in paired])
        return "over the folds", *_corrected(pairs, len(folds))
    first, second = (np.array(list(some.values())) for some in values)
    return "Welch's t", *_welch(first, second)


def _finite(training: Mapping[str, object]) -> bool:
    value = training.get("value")
    return isinstance(value, int | float) and math.isfinite(value)


def _welch(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    from scipy import stats

    parts = [float(np.var(some, ddof=1)) / len(some) for some in (first, second)]
    freedom = sum(parts) ** 2 / max(
        sum(part**2 / (len(some) - 1) for part, some in zip(parts, (first, second))), 1e-300
    )
    mean = float(second.mean() - first.mean())
    return _of_t(stats, mean, math.sqrt(sum(parts)), freedom)


def _corrected(pairs: np.ndarray, folds: int) -> tuple[float, float, float]:
    from scipy import stats

    variance = float(np.var(pairs, ddof=1)) * (1 / len(pairs) + 1 / (folds - 1))
    return _of_t(stats, float(pairs.mean()), math.sqrt(variance), len(pairs) - 1)


def _of_t(stats: Any, mean: float, error: float, freedom: float) -> tuple[float, float, float]:
    if error == 0:
        return (1.0 if mean == 0 else 0.0), mean, mean
    p_value = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    return p_value, mean - half, mean + half
