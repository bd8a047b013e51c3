"""What a study means: readings of its trials and curves, each with its number and a suggestion.

After the deep-learning tuning playbook: a study answers a question only if its space was wide
enough, its good region was sampled, and its differences are larger than its noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdlopt.study.readings import choice, luck, space, training
from jdlopt.study.readings.reading import Found, Reading, is_finite
from jdlopt.study.records import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Reading", "readings"]


def readings(study: Record, curves: pd.DataFrame) -> list[Reading]:
    """Returns what a study means, warnings first. Pure.

    Args:
      study: the content of ``study.json``.
      curves: the content of ``curves.parquet`` as a pandas table.

    Returns:
      The readings; one that the study has too little data for is left out.
    """
    objectives = study["objectives"]
    sign = -1.0 if objectives[0]["direction"] == "maximize" else 1.0
    done = [
        trial
        for trial in study["trials"]
        if trial["state"] == "done" and trial.get("values") and is_finite(trial["values"][0])
    ]
    done.sort(key=lambda trial: (sign * trial["values"][0], trial["number"]))
    found = Found(study, curves, done, sign, objectives[0]["name"], list(study["space"]))
    parts = (
        choice.data_changes, choice.against_base, luck.luck, luck.equal,
        choice.answers, space.infeasible, space.boundary, space.sampling,
        choice.winner, training.overfitting, training.length, training.noise,
    )  # fmt: skip
    made = [reading for part in parts for reading in part(found)]
    if any(reading["name"] == "equal" for reading in made):  # then no region is the good one
        made = [one for one in made if not _needs_a_best(one)]
    order = {"warning": 0, "note": 1, "good": 2}
    return sorted(made, key=lambda reading: order[reading["level"]])


def _needs_a_best(one: Reading) -> bool:
    if one["name"] == "sampling":
        return "done" not in one["numbers"]
    return one["name"] == "boundary" or (one["name"] == "noise" and one["level"] == "good")
