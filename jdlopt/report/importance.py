"""Hyperparameter importance: how much of the objective's variation each searched key explains."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from jdlopt.report.figures import bars
from jdlopt.report.hyperparameters import finished
from jdlopt.report.page import Figure
from jdlopt.study import space as spaces
from jdlopt.study.records import Record

FEWEST = 8
"""Trials that an importance needs."""


def importances(study: Record) -> tuple[dict[str, float], str]:
    """Returns each key's share of what moves the first objective, and by which method.

    fANOVA (Hutter et al., 2014) over all finished trials; where it can't be fitted, PED-ANOVA
    (Watanabe et al., 2023). Without either, no shares and the reason.
    """
    import optuna

    done = finished(study["trials"])
    if len(done) < FEWEST:
        return {}, f"Only {len(done)} trials finished: an importance needs at least {FEWEST}."
    if len({trial["values"][0] for trial in done}) == 1:
        return {}, "All trials have the same value: no key has an importance."
    space = {row["key"]: spaces.from_row(row) for row in study["space"]}
    kinds = {key: spaces.optuna_distribution(one) for key, one in space.items()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(direction=study["objectives"][0]["direction"])
    for trial in done:
        made.add_trial(
            optuna.trial.create_trial(
                params={k: spaces.label(spaces.as_choice(v)) for k, v in trial["params"].items()},
                distributions={key: kinds[key] for key in trial["params"]},
                value=trial["values"][0],
            )
        )
    evaluators: dict[str, Callable[[], Any]] = {
        "fANOVA": lambda: optuna.importance.FanovaImportanceEvaluator(seed=0),
        "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator,
    }
    reason = ""
    for name, evaluator in evaluators.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = optuna.importance.get_param_importances(made, evaluator=evaluator())
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            reason = str(error)
            continue
        if found and any(share > 0 for share in found.values()):
            return dict(found), f"{name} over {len(done)} trials"
        reason = "no key is in all trials."
    return {}, f"There is no importance: {reason}"


def importance(name: str, shares: Mapping[str, float], method: str) -> Figure | None:
    """Returns a bar a key, the most important first."""
    rows = sorted(shares.items(), key=lambda one: -one[1])
    texts = [f"{share:.0%}" for _, share in rows]
    return bars(name, f"By {method}.", rows, "share of the variation", texts=texts)
