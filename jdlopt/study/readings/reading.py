"""What every reading has, and the study as readings look at it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from jdlopt.study.records import Record

if TYPE_CHECKING:
    import pandas as pd

GOOD = 0.1
"""The share of the trials that counts as the best few (at least `FEW`)."""
FEW = 3
ENOUGH = 8
"""Trials that a reading about a space needs."""


class Reading(TypedDict):
    """One thing that a study says.

    Attributes:
      name: of the reading.
      level: ``warning``, ``note`` or ``good``.
      text: what was found.
      numbers: what it was found from.
      suggestion: what to do about it; may be empty.
    """

    name: str
    level: str
    text: str
    numbers: dict[str, object]
    suggestion: str


class Found(NamedTuple):
    """A study as the readings look at it: trials with a value, best first."""

    study: Record
    curves: pd.DataFrame
    trials: list[Record]
    sign: float
    metric: str
    space: list[Record]

    @property
    def best(self) -> list[Record]:
        """The best few trials."""
        return self.trials[: max(FEW, round(GOOD * len(self.trials)))]

    def cost(self, trial: Record) -> float:
        """A trial's first objective, lower being better."""
        return self.sign * trial["values"][0]


def make(name: str, level: str, text: str, suggestion: str = "", **numbers: object) -> Reading:
    """Returns a reading."""
    return {
        "name": name,
        "level": level,
        "text": text,
        "numbers": numbers,
        "suggestion": suggestion,
    }


def is_finite(value: object) -> bool:
    """Says whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def curve(found: Found, trial: int, metric: str) -> np.ndarray:
    """A metric's values of a trial by evaluation, the mean over its seeds and folds."""
    curves = found.curves
    if curves is None or len(curves) == 0 or metric not in curves:
        return np.array([])
    rows = curves[curves["trial"] == trial][["step", metric]].dropna()
    return rows.groupby("step")[metric].mean().sort_index().to_numpy(float)
