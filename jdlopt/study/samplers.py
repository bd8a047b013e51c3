"""How the next points are chosen: Optuna's samplers, seeded by study and trial number."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from jdlopt.errors import ConfigError, UserError, listing, nearest
from jdlopt.study.cmaes import CmaEs
from jdlopt.study.space import Space, optuna_distribution


def _random(seed: int, study_seed: int, objectives: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _quasi_random(seed: int, study_seed: int, objectives: int) -> BaseSampler:
    # the sequence is the study's; what it can't draw (conditional keys) is the trial's own
    return optuna.samplers.QMCSampler(
        scramble=True,
        seed=study_seed,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
    )


def _tpe(seed: int, study_seed: int, objectives: int) -> BaseSampler:
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def _gp(seed: int, study_seed: int, objectives: int) -> BaseSampler:
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "--sampler=gp: Optuna's Gaussian process needs PyTorch, which is not installed: "
            "pip install 'jdlopt[gp]', or choose tpe."
        )
    return optuna.samplers.GPSampler(seed=seed)


def _cmaes(seed: int, study_seed: int, objectives: int) -> BaseSampler:
    if objectives > 1:
        raise UserError("--sampler=cmaes: has one objective alone; choose tpe for several.")
    return CmaEs(seed)


SAMPLERS: dict[str, Callable[[int, int, int], BaseSampler]] = {
    "quasi_random": _quasi_random,
    "random": _random,
    "grid": _random,  # its points are queued when the study is made
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
}
"""Every sampler by name: ``(trial's seed, study's seed, number of objectives) → sampler``."""

HISTORY_FREE = ("quasi_random", "random", "grid")
"""The samplers whose points depend on no result: any number of them can be drawn ahead."""


def make_sampler(
    name: str, seed: int, objectives: int = 1, slot: int = 0, space: Space | None = None
) -> BaseSampler:
    """Returns a sampler whose draw for a trial is a function of (seed, number, finished trials).

    So a study that was interrupted goes on with the points that it would have had.

    Args:
      name: a key of `SAMPLERS`.
      seed: of the study.
      objectives: how many the study has.
      slot: how many others draw for the same study: each has points of its own.
      space: what a quasi-random sequence covers: its numbers that exist under no condition. Without
        it, Optuna takes the keys of the first finished trial.

    Raises:
      ConfigError: the name is unknown.
      UserError: the sampler can't be used here.
    """
    if name not in SAMPLERS:
        raise ConfigError(
            f"--sampler: {name!r} is unknown.{nearest(name, SAMPLERS)} Known: {listing(SAMPLERS)}."
        )
    SAMPLERS[name](0, seed, objectives)
    covered = _covered(space or {}) if name == "quasi_random" else None
    return _Numbered(name, seed, objectives, slot, covered)


def _covered(space: Space) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for key, one in sorted(space.items()):
        if not one.when and one.kind != "choice":
            found[key] = optuna_distribution(one)
    return found


def _nth(
    study: optuna.Study,
    sampler: BaseSampler,
    trial: FrozenTrial,
    search_space: dict[str, BaseDistribution],
) -> dict[str, object]:
    """Draws the point of a quasi-random sequence that has the trial's number.

    Optuna goes on from the last point that this study object drew. Trials that came from a storage
    were not drawn by it.
    """
    storage, study_id = study._storage, study._study_id
    for key in storage.get_study_system_attrs(study_id):
        if key.startswith("qmc:"):
            storage.set_study_system_attr(study_id, key, trial.number - 1)
            return sampler.sample_relative(study, trial, search_space)
    first = sampler.sample_relative(study, trial, search_space)  # makes the key
    return first if trial.number == 0 else _nth(study, sampler, trial, search_space)


class _Numbered(BaseSampler):
    """Makes the named sampler anew for each trial, seeded with the trial's number."""

    def __init__(
        self,
        name: str,
        seed: int,
        objectives: int,
        slot: int,
        covered: dict[str, BaseDistribution] | None,
    ):
        self._make, self._objectives = SAMPLERS[name], objectives
        self._words, self._covered = [seed, slot], covered
        self._study_seed = int(np.random.SeedSequence(self._words).generate_state(1)[0])
        self._made: dict[int, BaseSampler] = {}

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._made:
            words = np.random.SeedSequence([*self._words, trial.number]).generate_state(1)
            sampler = self._make(int(words[0]), self._study_seed, self._objectives)
            self._made = {trial.number: sampler}
        return self._made[trial.number]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self._covered:
            return self._covered
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        if self._covered:
            return _nth(study, self._of(trial), trial, search_space)
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> object:
        return self._of(trial).sample_independent(study, trial, name, distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)
