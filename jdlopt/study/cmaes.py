"""CMA-ES whose state is a function of the finished trials: nothing of it is stored, or read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cmaes  # type: ignore[import-untyped]
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

GENERATION = "cmaes:generation"
"""Of a drawn trial: how often the distribution had moved before, a number."""
FIXED = "fixed_params"
"""Optuna's name for the values of a trial that was enqueued."""
FIRST_SIGMA = 1 / 6
"""Of the first distribution, in every key's range."""
Range = FloatDistribution | IntDistribution


class CmaEs(BaseSampler):
    """Draws from a normal distribution that moves towards what was good (Hansen, 2016).

    For each draw the distribution is found again from the finished trials, a generation after the
    other. Optuna's own sampler keeps it as a pickle in the study's storage, which would run code
    when a storage that somebody else made is opened.

    Args:
      seed: of the draw.
    """

    def __init__(self, seed: int):
        self.seed, self.independent = seed, RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the numbers that all finished trials have."""
        return {
            key: one
            for key, one in IntersectionSearchSpace().calculate(study).items()
            if isinstance(one, FloatDistribution | IntDistribution) and not one.single()
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """Draws a point of the distribution as it stands, and notes its generation."""
        space = {
            key: one
            for key, one in search_space.items()
            if isinstance(one, FloatDistribution | IntDistribution)
        }
        if not space:
            return {}
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        optimizer = moved(study.get_trials(deepcopy=False), space, sign, self.seed)
        if FIXED not in trial.system_attrs:  # what was asked for is no draw of the distribution
            generation = optimizer.generation
            study._storage.set_trial_system_attr(trial._trial_id, GENERATION, generation)
        drawn = optimizer.ask()
        return {key: _value(space[key], unit) for key, unit in zip(space, drawn, strict=True)}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> object:
        """Draws what the distribution does not hold."""
        return self.independent.sample_independent(study, trial, name, distribution)


def moved(
    trials: Sequence[FrozenTrial], space: Mapping[str, Range], sign: float, seed: int
) -> cmaes.CMA:
    """Returns the optimizer after all whole generations of finished trials.

    Args:
      trials: of a study, in the order of their numbers.
      space: the numbers that are searched; each becomes 0 to 1.
      sign: -1 where more is better.
      seed: of its draws.
    """
    told: dict[int, list[tuple[np.ndarray, float]]] = {}
    for trial in trials:
        generation = trial.system_attrs.get(GENERATION)
        whole = trial.state == TrialState.COMPLETE and space.keys() <= trial.params.keys()
        if whole and type(generation) is int and trial.value is not None:
            units = np.array([_unit(one, trial.params[key]) for key, one in space.items()])
            told.setdefault(generation, []).append((units, sign * trial.value))
    size = len(space)
    optimizer = cmaes.CMA(
        mean=np.full(size, 0.5),
        sigma=FIRST_SIGMA,
        bounds=np.tile([0.0, 1.0], (size, 1)),
        n_max_resampling=10 * size,
        seed=seed,
    )
    while len(told.get(optimizer.generation, ())) >= optimizer.population_size:
        optimizer.tell(told[optimizer.generation][: optimizer.population_size])
    return optimizer


def _edges(one: Range) -> tuple[float, float]:
    """The range that 0 to 1 stands for; of whole numbers, each has an equal share of it."""
    half = (one.step or 0) / 2
    low, high = one.low - half, one.high + half
    return (math.log(low), math.log(high)) if one.log else (low, high)


def _unit(one: Range, value: float) -> float:
    low, high = _edges(one)
    held = min(max(float(value), one.low), one.high)
    return ((math.log(held) if one.log else held) - low) / (high - low)


def _value(one: Range, unit: float) -> float:
    low, high = _edges(one)
    value = low + float(unit) * (high - low)
    value = math.exp(value) if one.log else value
    if one.step:
        value = one.low + round((value - one.low) / one.step) * one.step
    value = min(max(value, one.low), one.high)
    return int(value) if isinstance(one, IntDistribution) else value
