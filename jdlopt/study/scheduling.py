"""Which trials are trained next: drawn anew or taken over, cut into populations, and submitted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import TrainPopulation, Trial
from jdlopt.study.samplers import HISTORY_FREE
from jdlopt.study.setup import POPULATIONS
from jdlopt.study.storage import GENERATION
from jdlopt.study.trials import Trials

AHEAD = 2
"""Generations that may be in the workers' hands: while one ends, the next already trains."""
LEAST_DRAWN = 64
"""Points drawn together where results don't matter: their structures can be sorted."""


@dataclass
class Generation:
    """Trials that were drawn at the same time, and the records of those that ended."""

    trials: set[int]
    records: dict[int, Mapping[str, Any]] = field(default_factory=dict)


class Scheduler:
    """Draws generations of trials ahead and submits their populations.

    Results are reported to the sampler by whole generations, in order: so seeds reproduce.

    Args:
      trials: what is known of the study's trials.
      executor: trains the populations.
    """

    def __init__(self, trials: Trials, executor: Executor):
        self.trials, self.executor, self.setup = trials, executor, trials.setup
        self.generations: dict[int, Generation] = {}
        self.drawn = self.reported = 0
        self.ended = False

    @property
    def more(self) -> int:
        """How many trials may be drawn now."""
        if self.ended or self.executor.late:
            return 0
        limit = self.setup.limit
        return 10**9 if limit is None else max(0, limit - len(self.trials.points))

    def advance(self) -> None:
        """Draws ahead, and reports the generations that have ended."""
        while True:
            if self.drawn < self.reported + AHEAD and self.more:
                self._draw()
                continue
            whole = self.generations.get(self.reported)
            if whole is None or len(whole.records) < len(whole.trials):
                return
            for number in sorted(whole.records):
                self.trials.report(number, whole.records[number])
            self.reported += 1

    def note(self, generation: int, number: int, record: Mapping[str, object]) -> None:
        """Notes that a trial has ended."""
        self.generations[generation].records[number] = record

    def _draw(self) -> None:
        """Draws a generation and submits its populations."""
        if not self.trials.storage.alone():
            self.trials.see_others()
        numbers = []
        for _ in range(min(self.more, self._generation_size())):
            number = self.trials.draw(self.drawn)
            if number is None:
                break
            numbers.append(number)
        self._add(numbers)

    def _add(self, numbers: Sequence[int]) -> None:
        """Submits trials as a new generation."""
        generation, self.drawn = self.drawn, self.drawn + 1
        self.generations[generation] = Generation(set(numbers))
        self._submit(numbers, generation)

    def _generation_size(self) -> int:
        size, setup = self._trials_per_population() * self.executor.count, self.setup
        structural = any(key not in setup.traced for key in setup.space)
        if structural and setup.options.sampler in HISTORY_FREE:
            return max(LEAST_DRAWN, 4 * size)
        return max(1, size)

    def _trials_per_population(self) -> int:
        trainings = self.setup.options.repeats * (self.setup.options.folds or 1)
        return max(1, self.setup.width // trainings)

    # --- populations ------------------------------------------------------------------------------

    def _submit(self, numbers: Sequence[int], generation: int) -> None:
        """Cuts trials of a generation into populations and submits them.

        Those that trained together when a coordinator was interrupted train together again, so that
        they go on from their checkpoint.
        """
        left = sorted(numbers)
        self.trials.write_points(left)
        for together in _interrupted(self.setup.workdir):
            if not set(together) <= set(left):
                continue
            if len({self._structure(number) for number in together}) == 1:
                self._submit_one(together, generation)
                left = [number for number in left if number not in together]
        structures: dict[str, list[int]] = {}
        for number in left:
            structures.setdefault(self._structure(number), []).append(number)
        most = self._trials_per_population()
        for some in structures.values():
            # the last of a study are shared evenly, so that no worker waits for another
            size = min(most, max(1, -(-len(some) // self.executor.count)))
            for first in range(0, len(some), size):
                self._submit_one(some[first : first + size], generation)

    def _structure(self, number: int) -> str:
        return json.dumps(self.setup.structural(self.trials.points[number]), sort_keys=True)

    def _submit_one(self, numbers: Sequence[int], generation: int) -> None:
        setup, options, points = self.setup, self.setup.options, self.trials.points
        folds = list(range(options.folds)) if options.folds else None
        some = [
            Trial(number, setup.seed + repeat, fold, setup.floats(points[number]))
            for number in numbers
            for repeat in range(options.repeats)
            for fold in (folds or (None,))
        ]
        shape = setup.structural(points[numbers[0]])
        request = TrainPopulation(
            config=setup.changed(shape),
            trials=some,
            folds=folds,
            width=max(setup.width, len(some)),
            directory=str((setup.workdir / POPULATIONS / _folder(numbers)).absolute()),
            halving=options.halving,
            reduction=options.reduction,
            execution_mode=options.execution_mode,
        )
        self.executor.submit(request, self._structure(numbers[0]), generation)

    # --- the trials of earlier calls and of other coordinators ------------------------------------

    def take_over(self) -> None:
        """Goes on with what the storage holds when the coordinator starts."""
        storage = self.trials.storage
        alone = storage.alone()
        storage.claim(self.setup.limit)
        everything = storage.trials()
        drawn: dict[int, list[FrozenTrial]] = {}
        for trial in everything:
            generation = trial.user_attrs.get(GENERATION)
            if alone and isinstance(generation, int):
                drawn.setdefault(generation, []).append(trial)
        # generations follow each other; where several coordinators drew, their numbers say nothing
        follow = sorted(drawn) == list(range(len(drawn)))
        if sum(map(len, drawn.values())) < len(everything) or storage.slot or not follow:
            drawn = {}
        self.drawn = max(drawn, default=-1) + 1
        self.reported = next(
            (one for one in sorted(drawn) if not all(t.state.is_finished() for t in drawn[one])),
            self.drawn,
        )
        for trial in everything:
            generation = trial.user_attrs.get(GENERATION, 0)
            self.trials.copy(trial, known=not drawn or generation < self.reported)
        finished = self.trials.finished
        for generation, some in sorted(drawn.items()):
            if generation >= self.reported:
                mine = [trial.number for trial in some if trial.number in self.trials.points]
                ended = {number: finished[number] for number in mine if number in finished}
                self.generations[generation] = Generation(set(mine), {**ended})
                self._submit([number for number in mine if number not in ended], generation)
        if not drawn:
            self._add_claimed()

    def adopt(self) -> None:
        """Takes over the trials that nobody works on any more."""
        self.trials.see_others()
        if self.ended or self.executor.late:
            return
        if self.trials.storage.claim(self.setup.limit, self.trials.left_out):
            self.trials.see_others()
            self._add_claimed()

    def _add_claimed(self) -> None:
        """Submits the trials that this coordinator has claimed, as a generation of their own."""
        known = [number for one in self.generations.values() for number in one.trials]
        numbers = self.trials.claimed(known)
        if numbers:
            self._add(numbers)


def _folder(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:06d}"


def _interrupted(workdir: Path) -> list[list[int]]:
    """Returns the trials of every population that left a checkpoint."""
    found = []
    for folder in sorted((workdir / POPULATIONS).glob("*")):
        trials: dict[int, None] = {}
        for meta in folder.glob("*/step-*/meta.json"):
            try:
                saved = json.loads(meta.read_text(encoding="utf-8"))["trials"]
                trials |= dict.fromkeys(int(trial["number"]) for trial in saved)
            except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
                continue  # what can't be read is trained anew
        if trials and folder.name == _folder(list(trials)):
            found.append(list(trials))
    return found
