"""How configs are compared, techniques ablated and a config improved: options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from jdlopt.config import LARGEST_SEED, Choice, Count, Natural, Range
from jdlopt.config.options import Flag, option_problems, raise_option_problems
from jdlopt.errors import UserError
from jdlopt.evidence.within import read_within
from jdlopt.executor.place import PLACES, place_problems
from jdlopt.study.options import ChangedData, Duration, Goal, reached, seconds

LEVEL = 0.95
"""Of an interval, by default."""
ACCURACY, SIZE, SPEED = "accuracy", "size", "speed"
"""What a config is improved for: a better metric, fewer bytes, faster predictions."""
SOUGHT: Mapping[str, frozenset[str]] = {
    ACCURACY: frozenset(("accuracy", "generalisation", "robustness")),
    SIZE: frozenset(("size",)),
    SPEED: frozenset(("inference speed",)),
}
"""What a technique must aim at, one of these, to be tried."""
FIRST_LOOK = 3
"""Pairs before the first look, which is the first that can decide whether a loss lies within."""
MOST_CONFIRM = 90
"""Seeds of a confirmation at most; those of the next one begin behind them."""

Level = Annotated[float, Range(0.5, 1, high_open=True)]
Pairs = Annotated[int, Range(2)]
Workers = Annotated[Count | None, Flag("processes", "N", shown="one a core")]
WorkersOn = Annotated[str | None, Flag(PLACES, "PLACE", shown="here")]
Metric = Annotated[str | None, Flag("validation/METRIC", "NAME")]
OfIntervals = Annotated[Level, Flag("of the intervals", "P")]


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """How pairs of trainings are made: what a comparison and an ablation share.

    Attributes:
      seeds: pairs at most.
      first_seed: the pairs' seeds are this one and those that follow.
      metric: ``validation/METRIC``; accuracy, or the RMSE of a regression, by default.
      least: the smallest gain that is worth having, in units of the metric.
      level: of the interval.
      tune: points at which each side's nuisance keys are tried before; 0 tunes nothing.
      tune_seeds: seeds a point.
      space: the nuisance keys and their distributions; needed where ``tune`` is not 0.
      workers: processes; one a core by default.
      workers_on: where they run: ``here``, ``ray[:HOST:PORT]``, ``slurm``.
      changed_data: ``ok`` goes on where the data are not those of before; what was trained on those
        is put aside.
    """

    seeds: Annotated[Pairs, Flag("pairs at most", "N")] = 20
    first_seed: Annotated[Natural, Flag("and those after it", "N")] = 0
    metric: Metric = None
    least: Annotated[float, Range(0), Flag("the smallest gain worth having", "X")] = 0.0
    level: OfIntervals = LEVEL
    tune: Annotated[Natural, Flag("points of nuisance keys, for each side", "N")] = 0
    tune_seeds: Annotated[Count, Flag("seeds a point", "N")] = 2
    space: Mapping[str, Any] = field(default_factory=dict)
    workers: Workers = None
    workers_on: WorkersOn = None
    changed_data: ChangedData = "refuse"

    def check(self) -> None:
        """Checks every option.

        Raises:
          UserError: what is wrong, all of it in one message.
        """
        problems = option_problems(self) + place_problems(self.workers_on)
        if self.first_seed + self.seeds - 1 > LARGEST_SEED:
            problems.append(
                f"--first-seed: {self.first_seed:,} and the {self.seeds - 1} after it: a seed is "
                f"at most {LARGEST_SEED:,}."
            )
        if self.tune and not self.space:
            problems.append(
                "--tune: which keys? Name a file with get_space() by --space, or mark keys of "
                "the config's get_space() with role='nuisance'."
            )
        raise_option_problems(problems)


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(PairOptions):
    """How to compare.

    Attributes:
      first: pairs before the first look, where one looks several times.
      every: pairs between two looks.
      fixed: look once, after all the seeds; else stop as soon as the answer is clear.
    """

    first: Annotated[Pairs, Flag("seeds before a look", "N")] = 5
    every: Annotated[Count, Flag("seeds between looks", "N")] = 2
    fixed: Annotated[bool, Flag("look once, after all the seeds: a narrower interval")] = False

    def looks(self) -> list[int]:
        """Returns the numbers of pairs at which the differences are looked at.

        Example:
          >>> ComparisonOptions(seeds=10, first=5, every=2).looks()
          [5, 7, 9, 10]
        """
        if self.fixed:
            return [self.seeds]
        return sorted({*range(min(self.first, self.seeds), self.seeds, self.every), self.seeds})


@dataclass(frozen=True, kw_only=True)
class AblationOptions(PairOptions):
    """How to ablate: one look, after all the seeds."""

    seeds: Annotated[Pairs, Flag("pairs at most", "N")] = 10


@dataclass(frozen=True, kw_only=True)
class ImprovementOptions:
    """How to improve.

    Attributes:
      budget: seconds in all, those of earlier calls included.
      aim: ``accuracy``, a better metric; ``size``, a model of fewer bytes; ``speed``, one that
        predicts faster.
      within: what of the metric may be lost for a smaller or a faster model, against the baseline:
        ``0.5pp`` (points of a metric that is a share), ``2%`` (of the baseline's value), or a
        number in units of the metric, where it is no share.
      until: stop once the config reaches this, such as ``validation/accuracy>=0.95``.
      metric: ``validation/METRIC`` that is to get better; by default the goal's, else the config's
        ``train.monitor``, else the task's. Where it only has to stay, the task's by default.
      techniques: names and groups to try; all that apply by default.
      confirm: fresh seeds of every confirmation; fewer (at least 5) where the budget has no time
        for them.
      test_seeds: runs of either config that are evaluated on the test split at the end; fewer (at
        least 2) where the budget has no time for them.
      level: of the intervals.
      diagnose: whether findings order what is tried.
      workers: processes; one a core by default.
      workers_on: where they run: ``here``, ``ray[:HOST:PORT]``, ``slurm``.
      changed_data: ``ok`` goes on where the data are not those of before; what was trained on those
        is put aside.
    """

    budget: Annotated[
        Duration, Flag("in all, such as 90s, 10m", "TIME", read=seconds, shown="30m")
    ] = 1800.0
    aim: Annotated[
        str,
        Choice((ACCURACY, SIZE, SPEED)),
        Flag("accuracy, or a model of less size or more speed that loses little enough", "NAME"),
    ] = ACCURACY
    within: Annotated[
        str | None, Flag("what size or speed may cost: 0.5pp, 2%, or in the metric's units", "LOSS")
    ] = None
    until: Annotated[str | None, Flag("such as 'validation/accuracy>=0.95'", "GOAL")] = None
    metric: Annotated[
        str | None, Flag("validation/METRIC that is to get better, or to stay", "NAME")
    ] = None
    techniques: Annotated[
        tuple[str, ...], Flag("names or groups to try", "A,B,C", shown="all")
    ] = ()
    confirm: Annotated[int, Range(3, MOST_CONFIRM), Flag("fresh seeds of a confirmation", "N")] = 10
    test_seeds: Annotated[Pairs, Flag("seeds of the test at the end", "N")] = 5
    level: OfIntervals = LEVEL
    diagnose: Annotated[bool, Flag("try in the catalogue's order", name="no-diagnosis")] = True
    workers: Workers = None
    workers_on: WorkersOn = None
    changed_data: ChangedData = "refuse"

    def check(self) -> None:
        """Checks every option.

        Raises:
          UserError: what is wrong, all of it in one message.
        """
        from jdlopt.evidence import techniques  # help must not wait for it

        problems = option_problems(self) + place_problems(self.workers_on)
        for name in sorted(set(self.techniques) - set(techniques.GROUPS)):
            try:
                found = techniques.find(name)
            except UserError as error:
                problems.append(str(error))
                continue
            sought = SOUGHT.get(self.aim, frozenset())
            if self.aim in (SIZE, SPEED) and sought.isdisjoint(found.aims):
                problems.append(
                    f"--techniques: {name} aims at {', '.join(found.aims)}, not at "
                    f"{', '.join(sought)}: `jdlopt techniques --aim={min(sought)!r}` lists those "
                    "that do."
                )
        try:
            goal = self.goal()
            if goal and self.metric and goal[0] != self.metric:
                problems.append(f"--until: is about {goal[0]}, and --metric is {self.metric}.")
        except UserError as error:
            problems.append(str(error))
        raise_option_problems([*problems, *self._aim_problems()])

    def _aim_problems(self) -> list[str]:
        """What is wrong with the aim and what goes with it."""
        if self.aim == ACCURACY:
            told = "--within: is for --aim=size and --aim=speed; a better metric loses nothing."
            return [] if self.within is None else [told]
        problems = []
        if self.until is not None:
            problems.append(
                f"--until: is for --aim=accuracy; with --aim={self.aim} the metric only has to "
                "stay: leave it out."
            )
        if self.within is None:
            return [*problems, f"--aim={self.aim}: say what may be lost for it, --within=0.5pp."]
        try:
            read_within(self.within)
        except UserError as error:
            problems.append(str(error))
        return problems

    def goal(self) -> Goal | None:
        """Returns the goal's metric and whether a value reaches it."""
        return reached(self.until)
