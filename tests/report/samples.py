"""Studies and runs as their directories hold them, made without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt.study import curves, records

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>"
SPACE = [
    {"key": "optim.learning_rate", "kind": "log_uniform", "low": 1e-4, "high": 1e-1, "log": True,
     "role": "nuisance"},
    {"key": "model.dropout_rate", "kind": "uniform", "low": 0.0, "high": 0.5, "log": False,
     "role": None},
    {"key": "model.activation", "kind": "choice", "choices": ["relu", HOSTILE],
     "role": "scientific"},
    {"key": "model.features", "kind": "choice", "choices": [[16], [32, 32]], "role": None},
    {"key": "optim.momentum", "kind": "uniform", "low": 0.0, "high": 0.99, "log": False,
     "role": None},
]  # fmt: skip


def a_trial(number: int, objectives: int = 1, state: str = "done") -> dict[str, Any]:
    """A trial at a place that depends on its number; half of them have momentum."""
    draw = np.random.default_rng(number)
    params = {
        "optim.learning_rate": float(10 ** draw.uniform(-4, -1)),
        "model.dropout_rate": float(draw.uniform(0, 0.5)),
        "model.activation": ["relu", HOSTILE][number % 2],
        "model.features": [[16], [32, 32]][number % 3 % 2],
    }
    if number % 2:
        params["optim.momentum"] = float(draw.uniform(0, 0.99))
    values = [float(draw.uniform(0.5, 0.9)), *(float(draw.uniform(1e2, 1e5)) for _ in "ab")]
    return {
        "number": number,
        "state": state,
        "params": params,
        "values": values[:objectives] if state in ("done", "pruned") else None,
        "interval": None,
        "trainings": [
            {"seed": 0, "fold": None, "value": values[0], "best_step": 90, "last_step": 100}
        ],
        "metrics": {},
        "steps": 100,
        "total_steps": 100,
        "reason": HOSTILE if state == "infeasible" else None,
    }


def a_study(trials: list[dict[str, Any]], objectives: int = 1) -> dict[str, Any]:
    names = [
        {"name": "validation/accuracy", "direction": "maximize"},
        {"name": "n_params", "direction": "minimize"},
        {"name": "step_seconds", "direction": "minimize"},
    ][:objectives]
    return {
        "status": "done",
        "sampler": "quasi_random",
        "objectives": names,
        "config": {"data": {"source": HOSTILE}, "model": {"name": "mlp"}},
        "space": SPACE,
        "trials": trials,
        "best": (records.best(trials, names) or [None])[0],
        "pareto": records.pareto(trials, names),
        "structures": {"abc": {"execution_mode": "vmap", "chosen": "default", "width": 8}},
        "time": {"wall_seconds": 9.0, "training_seconds": 8.0, "compile_seconds": 1.0,
                 "outside_share": 0.5, "workers": 2},
        "versions": {"python": "3.11"},
    }  # fmt: skip


def write_study(folder: Path, study: dict[str, Any]) -> Path:
    """Writes a study's directory, with curves of every trial that trained."""
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study), "utf-8")
    best = next((t for t in study["trials"] if t["number"] == study["best"]), None)
    if best is not None:
        config: dict[str, Any] = {
            "data": {"source": HOSTILE},
            "model": {"name": "mlp"},
            "optim": {},
        }
        for key, value in best["params"].items():
            section, name = key.split(".")
            config[section][name] = value
        (folder / "best_config.json").write_text(json.dumps(config), "utf-8")
    rows = [
        {"trial": trial["number"], "seed": 0, "fold": -1, "step": 5 * step, "epoch": step / 4,
         "train/loss": 0.9**step, "validation/loss": 0.9**step + 0.1,
         "train/accuracy": 1 - 0.9**step, "validation/accuracy": 0.9 - 0.9**step}
        for trial in study["trials"] if trial["state"] != "running"
        for step in range(1, 21)
    ]  # fmt: skip
    curves.add(folder, rows)
    return folder


# --- comparisons, ablations and improvements ------------------------------------------------------


def an_effect(low: float, high: float) -> dict[str, Any]:
    return {"mean": (low + high) / 2, "interval": [low, high], "level": 0.95, "p_value": 0.01,
            "std": 0.01, "kind": "fixed", "seeds": 10, "seeds_needed": None}  # fmt: skip


def _candidate(name: str, gain: float | None, **more: object) -> dict[str, Any]:
    return {"technique": name, "seeds": 8, "gain": gain, "change": {"model.name": HOSTILE},
            "score": 0.5, "cost": 1.25, "later": False, "share": None, "foreseen": True,
            "promising": (gain or 0.0) > 0} | more  # fmt: skip


def an_improvement() -> dict[str, Any]:
    step = {"technique": "batch_norm", "change": {"model.batch_norm": True}, "value": 0.7,
            "effect": an_effect(0.01, 0.03), "step_seconds": 2e-4, "before_step_seconds": 1e-4,
            "n_params": 1000, "seconds": 60.0, "share": None}  # fmt: skip
    tried = {
        "round": 1, "findings": [], "done": True, "tuned": True,
        "candidates": [
            _candidate("batch_norm", 0.02), _candidate("dropout", 0.01),
            _candidate("mixup", -0.01), _candidate("wider", 0.03, cost=3.0, later=True),
            _candidate("deeper", None, seeds=0, cost=None),
            _candidate("l2", None),
        ],
        "confirmed": [
            {"technique": "batch_norm", "effect": an_effect(0.01, 0.03), "adopted": True},
            {"technique": "dropout", "effect": an_effect(-0.01, 0.02), "adopted": False},
        ],
    }  # fmt: skip
    return {"status": "done", "why": "the time budget ended", "metric": "validation/accuracy",
            "aim": "accuracy", "within": None, "margin": 0.0, "cost": None,
            "steps": [step], "tried": [tried], "findings": [], "confirmed": an_effect(0.01, 0.04),
            "test": None, "seconds": 90.0}  # fmt: skip


def a_comparison() -> dict[str, Any]:
    """A comparison whose sides were tuned, and which has not decided."""
    side = {"mean": 0.7, "std": 0.01, "step_seconds": 1e-3, "steps": 100, "n_params": 1000}
    return {
        "metric": "validation/accuracy", "decision": "undecided", "reason": None, "least": 0.0,
        "detectable": 0.01, "seeds": 2, "effect": {**an_effect(-0.01, 0.02), "seeds_needed": 40},
        "a": side, "b": side, "changes": {"model.name": ["mlp", HOSTILE]},
        "pairs": [{"seed": n, "a": 0.7, "b": 0.71, "gain": 0.01} for n in range(2)],
        "cost": {"training_seconds": 1.5, "n_params": 1.0, "memory": None},
        "tuning": {"a": {"points": 3, "value": 0.7, "point": {"optim.learning_rate": 0.1}}},
    }  # fmt: skip


def an_ablation() -> dict[str, Any]:
    """An ablation of two techniques, one of which failed on a seed."""
    effect = {**an_effect(0.01, 0.03), "adjusted_p_value": 0.02}
    rows = [
        {"technique": name, "alone": effect, "left_out": effect, "interaction": effect,
         "cost": {"training_seconds": 1.2}, "decision": decision, "bad": bad,
         "change": {"model.name": HOSTILE}}
        for name, decision, bad in (("dropout", "adopt", {}), ("mixup", "drop", {"3": HOSTILE}))
    ]  # fmt: skip
    return {
        "metric": "validation/accuracy", "techniques": rows, "seeds": 5, "level": 0.95,
        "arms": {"baseline": {"mean": 0.7}}, "all": effect, "interactions": ["mixup"],
    }  # fmt: skip
