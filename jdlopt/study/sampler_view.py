"""What a sampler sees of a study, in memory: draws are made there, where they are fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jdlopt.config import Value
from jdlopt.study import space as spaces
from jdlopt.study.cmaes import FIXED
from jdlopt.study.samplers import make_sampler

NAME = "enqueued"
"""Of a trial whose point was asked for: the system attribute that says which it is."""


class SamplerView:
    """A copy of a study's trials, which may lag behind: a sampler learns when results are reported.

    A point is a function of seed, slot, the number of trials drawn before it, and the results that
    were reported to the sampler. So a study that goes on draws what it would have drawn.

    Args:
      name: the sampler's.
      seed: of the study.
      slot: the coordinator's.
      directions: one an objective.
      space: what is searched.
    """

    def __init__(
        self, name: str, seed: int, slot: int, directions: Sequence[Any], space: spaces.Space
    ):
        self.space, self.single = space, len(directions) == 1
        self.study = optuna.create_study(
            directions=list(directions),
            sampler=make_sampler(name, seed, len(directions), slot, space),
        )
        self.numbers: dict[int, int] = {}

    def add(self, trial: FrozenTrial, record: Mapping[str, object] | None) -> None:
        """Takes in a trial of the storage: finished if its record is given, else as running."""
        self.numbers[trial.number] = len(self.numbers)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.system_attrs,
            )
        )
        if record is not None:
            self.report(trial.number, record)

    def draw(
        self, values: Mapping[str, Value] | None = None, name: str = ""
    ) -> tuple[dict[str, Any], FrozenTrial]:
        """Draws a point; returns it, and as Optuna holds it. `name` says which trial it became.

        Args:
          values: what some of its keys have, as with Optuna's ``enqueue_trial``.
          name: by which a point with such values is known.
        """
        if values:
            held = {key: spaces.label(value) for key, value in values.items()}
            attrs = {FIXED: held, NAME: name}
            waiting = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=attrs)
            self.study.add_trial(waiting)  # the next one that is asked for
        trial = self.study.ask()
        params = spaces.suggest(trial, self.space)
        return params, self.study.get_trials(deepcopy=False)[trial.number]

    def name(self, number: int) -> None:
        """Says which number in the storage the last draw has."""
        self.numbers[number] = len(self.study.get_trials(deepcopy=False)) - 1

    def report(self, number: int, record: Mapping[str, Any]) -> None:
        """Reports a trial's result to the sampler."""
        mine = self.numbers[number]
        state = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(record["state"])
        values = record["values"]
        if state == TrialState.PRUNED and values and self.single:
            known = self.study.get_trials(deepcopy=False)[mine]
            if not known.state.is_finished():
                self.study._storage.set_trial_intermediate_value(
                    known._trial_id, record["steps"], values[0]
                )
        if state == TrialState.COMPLETE and values is None:
            state = None
        self.study.tell(
            mine,
            values if state == TrialState.COMPLETE else None,
            state or TrialState.FAIL,
            skip_if_finished=True,
        )
