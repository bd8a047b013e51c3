"""How a study searches: what the flags of ``jdlopt tune`` say, checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jdlopt.errors import UserError, listing, nearest

SAMPLERS = ("quasi_random", "random", "grid", "tpe", "gp", "cmaes")
HALVINGS = ("asha", "median")
FORMULATIONS = ("vmap", "scan", "each")
DEFAULT_TRIALS = 32


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
      halving: ``asha`` or ``median`` stops the worse trials early.
      reduction: with ``asha``, one in so many goes on.
      workers: processes; one a core on a CPU by default, one on an accelerator.
      width: members in a population; by the device by default.
      formulation: ``vmap``, ``scan`` or ``each``; measured by default.
      storage: an Optuna database URL or ``journal:FILE``; SQLite in the directory by default.
      study_name: in the storage.
      keep: how many of the best get a run's directory in ``trials``.
      report: whether ``report.html`` is written at the end.
    """

    trials: int | None = None
    budget: float | None = None
    until: str | None = None
    sampler: str = "quasi_random"
    seed: int = 0
    repeats: int = 1
    folds: int | None = None
    objectives: tuple[str, ...] = ()
    halving: str | None = None
    reduction: int = 3
    workers: int | None = None
    width: int | None = None
    formulation: str | None = None
    storage: str | None = None
    study_name: str | None = None
    keep: int = 3
    report: bool = True

    def __post_init__(self) -> None:
        endless = self.trials is None and self.budget is None and self.until is None
        if endless and self.sampler != "grid":
            object.__setattr__(self, "trials", DEFAULT_TRIALS)

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
        problems = []
        least = {"trials": 1, "repeats": 1, "folds": 2, "workers": 1, "width": 1, "keep": 0}
        for name, low in {**least, "reduction": 2, "seed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < low:
                problems.append(f"--{name}: must be at least {low}, found {value}.")
        if self.budget is not None and self.budget <= 0:
            problems.append(f"--budget: must be longer than 0, found {self.budget}.")
        for name, known in (
            ("sampler", SAMPLERS), ("halving", HALVINGS), ("formulation", FORMULATIONS),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value not in known:
                problems.append(
                    f"--{name}: {value!r} is unknown.{nearest(value, known)} "
                    f"Known: {listing(known)}."
                )
        try:
            self.goal()
        except UserError as error:
            problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))

    def goal(self) -> tuple[str, Callable[[float], bool]] | None:
        """Returns the goal's metric and whether a value reaches it.

        Raises:
          UserError: it can't be read.

        Example:
          >>> name, reached = Options(until="validation/accuracy>=0.9").goal()
          >>> name, reached(0.95), reached(0.85)
          ('validation/accuracy', True, False)
        """
        if self.until is None:
            return None
        match = re.fullmatch(r"\s*([\w/]+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", self.until)
        try:
            if match is None:
                raise ValueError
            bound = float(match[3])
        except ValueError:
            raise UserError(
                f"--until: {self.until!r} can't be read; write it as "
                "--until='validation/accuracy>=0.95'."
            ) from None
        ways: dict[str, Callable[[float], bool]] = {
            ">=": lambda value: value >= bound,
            "<=": lambda value: value <= bound,
            ">": lambda value: value > bound,
            "<": lambda value: value < bound,
        }
        return match[1], ways[match[2]]


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
