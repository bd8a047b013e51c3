"""Nuisance keys, tuned equally for everything that is compared: as many points, the same seeds.

A technique that is tried at the baseline's learning rate is tried unfairly. Each side gets its own
values first, and then the points of one quasi-random sequence, the same ones for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jdlopt import config as configs
from jdlopt.config import Value
from jdlopt.errors import ConfigError
from jdlopt.evidence.options import PairOptions
from jdlopt.evidence.sides import Side, side_of
from jdlopt.evidence.trainer import ENDED_WELL, Trainer, key_of
from jdlopt.metrics import higher_is_better
from jdlopt.study.space import Distribution, log_uniform

TUNING_SEED = 1_000_003
"""Seeds from here on are for tuning alone: no comparison draws them."""


def around(value: float, factor: float) -> Distribution:
    """Returns the values within a factor of one, evenly on a log scale.

    Example:
      >>> around(0.01, 10).low, around(0.01, 10).high
      (0.001, 0.1)
    """
    return log_uniform(round(value / factor, 12), round(value * factor, 12))


def resolved_space(nuisance: Mapping[str, Any], config: configs.AnyConfig) -> dict[str, Any]:
    """Returns distributions for a config: ``("around", factor)`` becomes bounds round its value.

    Keys that the config does not have, or whose value is no positive number to be around, are left
    out.
    """
    flat, space = configs.flat(config), {}
    for key, what in nuisance.items():
        if isinstance(what, Distribution):
            if key in flat:
                space[key] = what
            continue
        value = flat.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            space[key] = around(float(value), what[1])
    return space


def points(space: Mapping[str, Distribution], count: int, seed: int = 0) -> list[dict[str, Value]]:
    """Returns points of a scrambled Sobol sequence in a space.

    Args:
      space: from dotted keys to distributions without conditions.
      count: how many.
      seed: of the scrambling.

    Raises:
      ConfigError: a key exists under a condition.
    """
    from scipy.stats import qmc

    conditional = [key for key, one in space.items() if one.when]
    if conditional:
        raise ConfigError(
            f"{conditional[0]}: exists under a condition; nuisance keys of a comparison can't. "
            "Leave it out, or tune by `jdlopt tune`."
        )
    if not space or not count:
        return []
    whole = 1 << math.ceil(math.log2(max(count, 1)))
    drawn = qmc.Sobol(len(space), rng=np.random.default_rng(seed)).random(whole)[:count]
    return [
        {key: _at(one, place) for (key, one), place in zip(space.items(), row)} for row in drawn
    ]


def _at(one: Distribution, place: float) -> Value:
    """The value at a place in [0, 1) of a distribution."""
    if one.kind == "choice":
        return one.choices[int(place * len(one.choices))]
    assert one.low is not None and one.high is not None
    if one.kind == "int":
        low, high = int(one.low), int(one.high)
        if one.log:
            ends = math.log(low), math.log(high + 1)
            return min(high, int(math.exp(ends[0] + place * (ends[1] - ends[0]))))
        return low + one.step * int(place * ((high - low) // one.step + 1))
    if one.kind == "log_uniform":
        found = math.exp(math.log(one.low) + place * math.log(one.high / one.low))
    else:
        found = one.low + place * (one.high - one.low)
    return float(f"{found:.3g}")  # what a person would write


class Tuned(NamedTuple):
    """What tuning came to.

    Attributes:
      side: the config at its best point.
      point: the values of its nuisance keys; empty where its own were best.
      value: of the metric there, or None where every point failed.
      points: how many were tried.
    """

    side: Any
    point: dict[str, Value]
    value: float | None
    points: int

    def record(self) -> dict[str, Any]:
        """Returns what a comparison's record keeps."""
        return {"point": self.point, "value": self.value, "points": self.points}


def tune_all(
    arms: Mapping[str, Side], trainer: Trainer, metric: str, options: PairOptions
) -> dict[str, Tuned]:
    """Tunes the nuisance keys of several configs, each at as many points and on the same seeds.

    Args:
      arms: sides by name.
      trainer: trains them.
      metric: what counts, ``validation/METRIC``.
      options: ``tune`` (points besides the config's own), ``tune_seeds`` and ``space``.
    """
    seeds = range(TUNING_SEED, TUNING_SEED + options.tune_seeds)
    sign = 1.0 if higher_is_better(metric.partition("/")[2]) else -1.0
    tried: dict[str, list[tuple[dict[str, Value], Any]]] = {}
    for name, side in arms.items():
        drawn = points(resolved_space(options.space, side.config), options.tune)
        tried[name] = [
            ({}, side),
            *((point, side_of(side.raw, point, like=side)) for point in drawn),
        ]
    trained = trainer.train([(s.config, seeds) for some in tried.values() for _, s in some])
    found = {}
    for name, some in tried.items():
        scores = []
        for _, side in some:
            own = [trained[key_of(side.config)].get(seed) for seed in seeds]
            values = [
                t.metrics.get(metric, math.nan) if t and t.status in ENDED_WELL else math.nan
                for t in own
            ]
            score = sign * float(np.mean(values))
            scores.append(score if math.isfinite(score) else -math.inf)
        best = int(np.argmax(scores))
        value = sign * scores[best] if math.isfinite(scores[best]) else None
        found[name] = Tuned(some[best][1], some[best][0], value, len(some))
    return found
