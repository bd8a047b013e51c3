"""How a study searches: what the flags of ``jdlopt tune`` say, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from jdlopt.config import Choice, Count, Natural, Range
from jdlopt.config.options import Flag, option_problems, raise_option_problems
from jdlopt.errors import UserError
from jdlopt.executor.messages import EXECUTION_MODES
from jdlopt.executor.place import PLACES, place_problems
from jdlopt.study.enqueue import read_points

SAMPLERS = ("quasi_random", "random", "grid", "tpe", "gp", "cmaes")
HALVINGS = ("asha", "median")
DEFAULT_TRIALS = 32
ChangedData = Annotated[
    str,
    Choice(("refuse", "ok")),
    Flag("data that are not those of before: refuse, or ok to go on", "WHAT"),
]
"""Of a study or a comparison that is gone on with."""
Duration = Annotated[float, Range(0, low_open=True)]
"""Seconds."""


def seconds(text: str) -> float:
    """Reads a duration: ``90``, ``90s``, ``10m``, ``1.5h``, ``1h30m``.

    Raises:
      UserError: it is none.

    Example:
      >>> seconds("1h30m")
      5400.0
    """
    units = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    found = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found or "".join(number + unit for number, unit in found) != text.strip():
        raise UserError(f"--budget: {text!r} is no duration; write 90s, 10m or 1h30m.")
    return sum(float(number) * units[unit] for number, unit in found)


Goal = tuple[str, Callable[[float], bool]]


def reached(until: str | None) -> Goal | None:
    """Returns a goal's metric and whether a value reaches it; None if there is no goal.

    Raises:
      UserError: it can't be read.

    Example:
      >>> name, enough = reached("validation/accuracy>=0.9")
      >>> name, enough(0.95), enough(0.85)
      ('validation/accuracy', True, False)
    """
    if until is None:
        return None
    match = re.fullmatch(r"\s*([\w/.:]+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", str(until))
    try:
        if match is None:
            raise ValueError
        bound = float(match[3])
    except ValueError:
        raise UserError(
            f"--until: {until!r} can't be read; write it as --until='validation/accuracy>=0.95'."
        ) from None
    ways: dict[str, Callable[[float], bool]] = {
        ">=": lambda value: value >= bound,
        "<=": lambda value: value <= bound,
        ">": lambda value: value > bound,
        "<": lambda value: value < bound,
    }
    return match[1], ways[match[2]]


@dataclass(frozen=True)
class Options:
    """How to search.

    Attributes:
      trials: how many in all, those of earlier calls included; 32 if neither a budget nor a goal
        is given.
      budget: seconds that this call may take.
      until: stop once a trial reaches this, such as ``validation/accuracy>=0.95``.
      sampler: see `jdlopt.study.samplers`.
      seed: of the sampler.
      repeats: seeds a trial, ranked by their mean.
      folds: cross-validation with so many folds, ranked by their mean.
      objectives: metrics of the validation split, ``n_params`` or ``step_seconds``; the config's
        monitored metric by default.
      enqueue: points that are trained first, each a dict from some of the space's keys to values;
        the sampler draws the other keys.
      base: whether the first trial is the base config, as far as it lies in the space.
      halving: ``asha`` or ``median`` stops the worse trials early.
      reduction: with ``asha``, one in so many goes on.
      workers: processes; one a core on a CPU by default, one on an accelerator.
      workers_on: where they run: ``here``, ``ray[:HOST:PORT]`` or ``slurm``, with what each takes
        there (``ray,cpus=2,gpus=1``); see `jdlopt.executor.place`.
      width: trials in a population, one a seed and fold; by the device by default.
      execution_mode: ``vmap``, ``scan`` or ``each``; measured by default.
      storage: an Optuna database URL or ``journal:FILE``; SQLite in the directory by default.
      study_name: in the storage.
      keep: how many of the best get a run's directory in ``trials``.
      changed_data: ``ok`` goes on with a study whose data are not those that it began with.
    """

    trials: Annotated[
        Count | None, Flag("trials in all", "N", group="budget", shown=str(DEFAULT_TRIALS))
    ] = None
    budget: Annotated[
        Duration | None,
        Flag("such as 90s, 10m, 1h30m", "TIME", group="budget", read=seconds),
    ] = None
    until: Annotated[
        str | None, Flag("such as 'validation/accuracy>=0.95'", "GOAL", group="budget")
    ] = None
    sampler: Annotated[str, Choice(SAMPLERS), Flag(", ".join(SAMPLERS), "NAME", group="search")] = (
        "quasi_random"
    )
    seed: Annotated[Natural, Flag("of the sampler", "N", group="search")] = 0
    repeats: Annotated[Count, Flag("seeds a trial", "K", group="search")] = 1
    folds: Annotated[
        int | None, Range(2), Flag("cross-validation with K folds", "K", group="search")
    ] = None
    objectives: Annotated[
        tuple[str, ...],
        Flag(
            "validation/METRIC, n_params or step_seconds; may be given several times",
            "NAME",
            name="objective",
            group="search",
        ),
    ] = ()
    enqueue: Annotated[
        tuple[Mapping[str, object], ...],
        Flag(
            "a point to train first, KEY=VALUE,KEY=VALUE, or a JSON file of points; may be given "
            "several times",
            "POINT",
            group="search",
            read=read_points,
        ),
    ] = ()
    base: Annotated[
        bool, Flag("don't train the base config first", name="no-base", group="search")
    ] = True
    halving: Annotated[
        str | None,
        Choice(HALVINGS),
        Flag("stop the worse early: asha or median", "RULE", group="search"),
    ] = None
    reduction: Annotated[
        int, Range(2), Flag("asha: one in so many goes on", "N", group="search")
    ] = 3
    workers: Annotated[Count | None, Flag("processes", "N", group="how", shown="one a core")] = None
    workers_on: Annotated[str | None, Flag(PLACES, "PLACE", group="how", shown="here")] = None
    width: Annotated[Count | None, Flag("trials in a population", "N", group="how")] = None
    execution_mode: Annotated[
        str | None,
        Choice(EXECUTION_MODES),
        Flag("vmap, scan or each; else measured", "NAME", group="how"),
    ] = None
    storage: Annotated[
        str | None, Flag("an Optuna database, or journal:FILE", "URL", group="how")
    ] = None
    study_name: Annotated[
        str | None, Flag("the study's name in the storage", "NAME", name="study", group="how")
    ] = None
    keep: Annotated[Natural, Flag("best trials kept as runs", "N", group="how")] = 3
    changed_data: ChangedData = "refuse"
    _endless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        endless = self.trials is None and self.budget is None and self.until is None
        if endless and self.sampler != "grid":
            object.__setattr__(self, "trials", DEFAULT_TRIALS)
        object.__setattr__(self, "_endless", endless)

    @property
    def is_limited_by_default(self) -> bool:
        """Whether neither trials, nor a budget, nor a goal were asked for."""
        return self._endless

    def replaced(self, **changes: Any) -> Options:
        """Returns the options with some changed."""
        return replace(self, **changes)

    def definition(self) -> dict[str, Any]:
        """Returns what makes another study of it; how much and where it is searched does not."""
        names = ("sampler", "seed", "repeats", "folds", "halving", "reduction")
        return {name: getattr(self, name) for name in names}

    def check(self) -> None:
        """Checks every option.

        Raises:
          UserError: what is wrong, all of it in one message.
        """
        problems = option_problems(self) + place_problems(self.workers_on)
        try:
            reached(self.until)
        except UserError as error:
            problems.append(str(error))
        raise_option_problems(problems)

    def goal(self) -> Goal | None:
        """Returns the goal's metric and whether a value reaches it, as `reached` does."""
        return reached(self.until)
