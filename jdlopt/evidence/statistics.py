"""What paired differences say: intervals, p values, power, and corrections for several looks.

All of it takes the differences of pairs (one seed, both sides), as plain NumPy. A sequential
comparison looks at them again and again, and needs numbers that hold at every look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jdlopt.evidence.options import LEVEL

PRIOR = 1.0
"""Variance of the standardised effect that the sequential test mixes over: effects of about one
standard deviation of a pair are found with the fewest seeds; the error rate holds for any value."""
MOST_SEEDS = 10_000
"""Where the search for a number of seeds ends."""

Differences = Sequence[float] | Float[np.ndarray, " pairs"]


class Effect(NamedTuple):
    """A mean difference and what is known of it.

    Attributes:
      mean: of the differences.
      low, high: the ends of its interval; infinite where too few pairs say anything.
      p_value: of no difference.
      std: of one difference.
      pairs: how many there are.
      sequential: whether interval and p value hold at every look.
    """

    mean: float
    low: float
    high: float
    p_value: float
    std: float
    pairs: int
    sequential: bool


def spread(differences: Differences, resolution: float = 0.0) -> float:
    """Returns the standard deviation of one difference, with what rounding hides added.

    A metric such as accuracy moves in steps of one example. Both sides of a pair are rounded to
    such a step, which adds ``2 · resolution² / 12`` to the variance (Sheppard's correction, taken
    the cautious way round): a few equal differences are then no proof of no spread.

    Args:
      differences: one a pair.
      resolution: the metric's step.
    """
    values = np.asarray(differences, float)
    if len(values) < 2:
        return math.nan
    return math.sqrt(float(np.var(values, ddof=1)) + resolution**2 / 6)


def fixed_effect(differences: Differences, level: float = LEVEL, resolution: float = 0.0) -> Effect:
    """Returns the paired t interval; for a number of pairs that was set before.

    Args:
      differences: one a pair.
      level: of the interval.
      resolution: see `spread`.

    Example:
      >>> effect = fixed_effect([0.02, 0.03, 0.01, 0.02])
      >>> round(effect.mean, 3), round(effect.low, 4), round(effect.high, 4)
      (0.02, 0.007, 0.033)
    """
    from scipy import stats

    values = np.asarray(differences, float)
    count, mean = len(values), float(np.mean(values))
    std = spread(values, resolution)
    if count < 2:
        return Effect(mean, -math.inf, math.inf, 1.0, std, count, False)
    if std == 0:
        return Effect(mean, mean, mean, float(mean == 0), std, count, False)
    error = std / math.sqrt(count)
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    return Effect(mean, mean - half, mean + half, p_value, std, count, False)


def bayes_factor(t: float, pairs: int, prior: float = PRIOR) -> float:
    """Returns the evidence of a difference against none, of a t statistic.

    The standardised effect is normal with variance ``prior`` under the alternative, the scale is
    unknown: ``(1 + ng)^-½ · ((1 + t²/ν) / (1 + t²/(ν(1 + ng))))^(n/2)`` with ``ν = n - 1`` (Gönen
    et al., 2005). Under no difference, the sequence over n is a test martingale of the
    scale-invariant data, so that it exceeds ``1/α`` at any time with a probability of at most ``α``
    (Ville's inequality; Grünwald, de Heide and Koolen, 2024; Wang and Ramdas, 2024).
    """
    if pairs < 2:
        return 1.0
    if math.isinf(t):
        return math.inf
    freedom, wide = pairs - 1, 1 + pairs * prior
    log = 0.5 * pairs * (math.log1p(t * t / freedom) - math.log1p(t * t / (freedom * wide)))
    return math.exp(min(700.0, log - 0.5 * math.log(wide)))


def radius(pairs: int, alpha: float = 1 - LEVEL, prior: float = PRIOR) -> float:
    """Returns the t statistic that a sequential comparison needs after so many pairs.

    It is where `bayes_factor` is ``1/alpha``; infinite where so few pairs can't reach it.

    Example:
      >>> round(radius(10), 2), radius(3)
      (3.87, inf)
    """
    if pairs < 2:
        return math.inf
    wide = 1 + pairs * prior
    ratio = (wide / alpha**2) ** (1 / pairs)
    if ratio >= wide:
        return math.inf
    return math.sqrt((pairs - 1) * (ratio - 1) / (1 - ratio / wide))


def sequential_effect(
    differences: Differences, level: float = LEVEL, resolution: float = 0.0, prior: float = PRIOR
) -> Effect:
    """Returns an interval and a p value that hold however often one looks, and whenever one stops.

    Args:
      differences: one a pair, in the order in which they came.
      level: of the interval.
      resolution: see `spread`.
      prior: see `PRIOR`.
    """
    values = np.asarray(differences, float)
    count, mean = len(values), float(np.mean(values))
    std, reach = spread(values, resolution), radius(len(values), 1 - level, prior)
    largest = 1.0
    for seen in range(2, count + 1):
        part = values[:seen]
        error = spread(part, resolution) / math.sqrt(seen)
        t = float(np.mean(part)) / error if error else math.inf if np.mean(part) else 0.0
        largest = max(largest, bayes_factor(t, seen, prior))
    half = reach * std / math.sqrt(count) if std else 0.0
    return Effect(mean, mean - half, mean + half, 1 / largest, std, count, True)


def effect_of(
    differences: Differences, sequential: bool, level: float = LEVEL, resolution: float = 0.0
) -> Effect:
    """Returns `sequential_effect` or `fixed_effect`."""
    made = sequential_effect if sequential else fixed_effect
    return made(differences, level, resolution)


def seeds_needed(effect: Effect, level: float = LEVEL, least: float = 0.0) -> int | None:
    """Returns the number of pairs at which an effect like this one would be clear, or None.

    It is the smallest number whose interval, around the mean and with the spread of now, leaves
    ``least`` out. None where the mean is too small for any number up to `MOST_SEEDS`.

    Args:
      effect: of the pairs so far.
      level: of the interval.
      least: the smallest gain that is worth having.
    """
    from scipy import stats

    distance = abs(effect.mean - least)
    if not distance or not math.isfinite(effect.std):
        return None

    def clear(count: int) -> bool:
        if effect.sequential:
            reach = radius(count, 1 - level)
        else:
            reach = float(stats.t.ppf(0.5 + level / 2, count - 1))
        return reach * effect.std / math.sqrt(count) < distance

    if not clear(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # not clear, clear
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if clear(middle) else (middle, high)
    return high


def power(
    gain: float,
    std: float,
    looks: Sequence[int],
    *,
    sequential: bool = True,
    level: float = LEVEL,
    resolution: float = 0.0,
    draws: int = 4000,
    seed: int = 0,
) -> float:
    """Returns how often a gain is found, by simulation of normal differences.

    Where a metric moves in steps, each difference is rounded to one of its two nearest steps at
    random, so that the mean stays: then it is as coarse as measured ones are.

    Args:
      gain: the true mean of a difference.
      std: the true standard deviation of one, without what `spread` adds for rounding.
      looks: the numbers of pairs at which one looks; a fixed comparison looks at the last alone.
      sequential: whether the interval holds at every look.
      level: of the interval.
      resolution: see `spread`.
      draws: simulated comparisons.
      seed: of the simulation.
    """
    from scipy import stats

    if std <= 0:
        return float(gain > 0)
    rng, shape = np.random.default_rng(seed), (draws, max(looks))
    inner = math.sqrt(max(std**2 - resolution**2 / 6, 0.0))  # what rounding adds comes below
    values = rng.normal(gain, inner, shape)
    if resolution:
        values = np.floor(values / resolution + rng.random(shape)) * resolution
    found = np.zeros(draws, bool)
    for count in sorted(looks) if sequential else [max(looks)]:
        part = values[:, :count]
        error = np.sqrt((part.var(axis=1, ddof=1) + resolution**2 / 6) / count)
        reach = radius(count, 1 - level) if sequential else stats.t.ppf(0.5 + level / 2, count - 1)
        found |= part.mean(axis=1) > np.where(error > 0, reach * error, 0.0)
    return float(found.mean())


def detectable(
    std: float,
    looks: Sequence[int],
    *,
    sequential: bool = True,
    resolution: float = 0.0,
    power_wanted: float = 0.8,
) -> float:
    """Returns the smallest gain that is found in ``power_wanted`` of all comparisons.

    The other arguments are those of `power`.
    """
    if not std > 0:
        return resolution

    def enough(gain: float) -> bool:
        found = power(gain, std, looks, sequential=sequential, resolution=resolution, draws=1000)
        return found >= power_wanted

    low, high = 0.0, std
    while not enough(high):
        low, high = high, 2 * high
        if high > 1e3 * std:
            return math.inf
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# --- several comparisons --------------------------------------------------------------------------


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Returns p values adjusted for the number of comparisons: no false one among all (Holm, 1979).

    Example:
      >>> adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
      >>> {name: round(value, 3) for name, value in adjusted.items()}
      {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    order = sorted(p_values, key=lambda name: p_values[name])
    adjusted, running = {}, 0.0
    for rank, name in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def false_discovery(p_values: Mapping[str, float]) -> dict[str, float]:
    """Returns p values adjusted for the share of false ones (Benjamini and Hochberg, 1995)."""
    from scipy import stats

    if not p_values:
        return {}
    adjusted = stats.false_discovery_control(list(p_values.values()))
    return dict(zip(p_values, map(float, adjusted)))
