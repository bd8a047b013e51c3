"""The report of a study: findings, best trials, hyperparameter effects and what it cost."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jdlopt.report import commands, figures, hyperparameters
from jdlopt.report.importance import importance, importances
from jdlopt.report.page import Figure, Table, number, render
from jdlopt.report.parallel import parallel
from jdlopt.report.pareto import front
from jdlopt.report.records import as_written, read_curves
from jdlopt.report.saving import save
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.enqueue import BASE, SAMPLER
from jdlopt.study.readings import readings
from jdlopt.study.records import Record
from jdlopt.study.schema import UNFINISHED, read_study

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""Best trials in the table."""
CURVES = 5
"""Best trials with curves."""
INFEASIBLE = 50
"""Infeasible trials in the table."""


class Best(NamedTuple):
    """A row of the best trials.

    Attributes:
      number: the trial's.
      origin: ``base``, ``enqueued``, or empty where a sampler drew its point.
      values: each objective, and half of its interval or None.
      params: in the order of the space, as text; None where the trial has no such key.
      flags: its values, as a shell takes them.
      config: the whole config as JSON; None where it can't be made.
    """

    number: int
    origin: str
    values: list[tuple[float, float | None]]
    params: list[object]
    flags: str
    config: str | None


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` of a study, finished or not; returns its path.

    Raises:
      WorkdirError: ``study.json`` can't be read, or is none.
    """
    study = read_study(workdir)
    curves, damage = read_curves(workdir)
    with as_written(workdir / "study.json"):
        text = _page(study, curves, damage, workdir)
    return save(workdir, text)


def _page(study: Record, curves: pd.DataFrame, damage: str, workdir: Path) -> str:
    trials, objectives, space = study["trials"], study["objectives"], study["space"]
    order = records.best(trials, objectives)
    on_front = list(records.pareto(trials, objectives))
    if len(objectives) > 1:
        order = [*(n for n in order if n in on_front), *(n for n in order if n not in on_front)]
    by_number = {trial["number"]: trial for trial in trials}
    best = [by_number[number] for number in order]
    shown = best[:SHOWN] + [trial for trial in best[SHOWN:] if trial.get("origin") == BASE]
    objective, up = objectives[0]["name"], objectives[0]["direction"] == "maximize"
    shares, method = importances(study) if space and trials else ({}, "")
    done = hyperparameters.finished(trials)
    config = study["config"]
    sampler = str(study.get("sampler", "")).replace("_", "-")
    return render(
        "study",
        title=f"Study {workdir.resolve().name}",
        lead=f"{config['model']['name']} on {config['data']['source']}: {sampler} search, "
        f"{len(trials)} trials.",
        footer=", ".join(f"{key} {value}" for key, value in study["versions"].items()),
        facts=_facts(study, best, len(on_front)),
        status=study["status"],
        damage=damage,
        left_out=records.left_out_in_words(study),
        findings=[
            {**one, "title": "", "hint": one["suggestion"]} for one in readings(study, curves)
        ],
        best=_best(study, shown, workdir),
        commands=commands.of_study(workdir, study),
        where=commands.where(config),
        header=["trial", *(one["name"] for one in objectives),
                *hyperparameters.shortened([row["key"] for row in space]), "config"],
        top=min(SHOWN, len(best)),
        origins=any(trial.get("origin", SAMPLER) != SAMPLER for trial in shown),
        averaged=study.get("repeats", 1) > 1 or bool(study.get("folds")),
        objectives=objectives,
        curves=_curves(study, curves, best[:CURVES]),
        fronts=[
            front(f"pareto-{other}", trials, on_front, objectives, other)
            for other in range(1, len(objectives) if order else 1)
        ],
        effects=[
            hyperparameters.effect(
                f"effect-{index}", row, trials, objective, up, order[0] if order else None
            )
            for index, row in enumerate(space if trials else ())
        ],
        questions=[
            hyperparameters.isolation(f"isolation-{index}", row, trials, objective, up)
            for index, row in enumerate(r for r in space if r.get("role") == "scientific")
            if done
        ],
        parallel=parallel("parallel", space, trials, objective, up) if done and space else None,
        importance=importance("importances", shares, method) if shares else None,
        method=method,
        unjudged=[row["key"] for row in space if row["key"] not in shares],
        infeasible=_infeasible(trials),
        structures=_structures(study["structures"]),
        time=study["time"],
    )  # fmt: skip


def _facts(study: Record, best: Sequence[Record], on_front: int) -> list[tuple[object, ...]]:
    objectives = study["objectives"]
    found: list[tuple[object, ...]] = []
    if len(objectives) > 1 and best:
        for index, one in enumerate(objectives):
            pick = max if one["direction"] == "maximize" else min
            found.append((f"best {one['name']}", pick(t["values"][index] for t in best)))
        found.append(("trials on the front", on_front))
    elif best:
        value, half = _value(best[0], 0)
        found.append((f"best {objectives[0]['name']}", value, f"± {number(half)}" if half else ""))
        found.append(("best trial", str(best[0]["number"])))
        bases = [trial for trial in best if trial.get("origin") == BASE]
        if bases:
            found.append(("base config", bases[0]["values"][0], f"trial {bases[0]['number']}"))
    states = [trial["state"] for trial in study["trials"]]
    for state in (*records.STATES, *UNFINISHED):
        if states.count(state) or state == "done":
            found.append((state, states.count(state)))
    return [*found, ("wall time", f"{study['time']['wall_seconds']:,.0f} s")]


def _value(trial: Record, index: int) -> tuple[float, float | None]:
    """Returns an objective's value, and half of its interval to 2 digits."""
    intervals = trial.get("interval") or []
    half = None
    if index < len(intervals):
        low, high = intervals[index]
        half = float(f"{(high - low) / 2:.2g}")
    return trial["values"][index], half


# --- the best trials ------------------------------------------------------------------------------


def _best(study: Record, best: Sequence[Record], workdir: Path) -> list[Best]:
    base = _base(study, workdir)
    return [
        Best(
            trial["number"],
            str(trial.get("origin") or "").replace(SAMPLER, ""),
            [_value(trial, index) for index in range(len(trial["values"]))],
            [
                spaces.words(value) if isinstance(value, list) else value
                for value in (trial["params"].get(row["key"]) for row in study["space"])
            ],
            _flags(trial),
            _config(base, trial),
        )
        for trial in best
    ]


def _flags(trial: Record) -> str:
    """Returns a trial's values as flags that a shell takes as they are."""
    flags = []
    for key, value in trial["params"].items():
        said = str(value)
        if isinstance(value, list):
            said = ",".join(str(one) for one in value) + ("," if len(value) == 1 else "")
        flags.append(shlex.quote(f"--config.{key}={said}"))
    return " ".join(flags)


def _base(study: Record, workdir: Path) -> tuple[dict[str, object], set[str]] | None:
    """Returns the best trial's config, from which others differ by their params, and its keys."""
    try:
        config = json.loads((workdir / "best_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    best = next((t for t in study["trials"] if t["number"] == study.get("best")), None)
    if best is None or not isinstance(config, dict):
        return None
    return config, set(best["params"])


def _config(base: tuple[Record, set[str]] | None, trial: Record) -> str | None:
    """Returns a trial's config; None where the best one's can't be changed to it key by key."""
    if base is None or set(trial["params"]) != base[1]:
        return None
    config = json.loads(json.dumps(base[0]))
    for dotted, value in trial["params"].items():
        *sections, key = dotted.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                return None
        node[key] = value
    return json.dumps(config, indent=2)


def _curves(study: Record, curves: pd.DataFrame, best: Sequence[Record]) -> list[Figure]:
    names = [one["name"] for one in study["objectives"]]
    metrics = dict.fromkeys(
        metric
        for metric in (*names, "validation/loss", "validation/accuracy")
        if metric.startswith("validation/") and metric in curves
    )
    made: list[Figure] = []
    for metric in metrics:
        what = metric.partition("/")[2]
        lines = []
        for colour, trial in enumerate(best):
            rows = curves[curves["trial"] == trial["number"]]
            for name, dash in ((metric, "solid"), (f"train/{what}", "dot")):
                if name not in rows:
                    continue
                values = rows[["step", name]].dropna().groupby("step")[name].mean()
                if len(values):
                    label = f"trial {trial['number']}" + (", training" if dash == "dot" else "")
                    x, y = values.index.tolist(), values.tolist()
                    lines.append(figures.Line(label, x, y, colour, dash, dash == "solid"))
        if lines:
            both = any(line.dash == "dot" for line in lines)
            caption = f"{what}: validation solid" + (", training dotted" if both else "")
            made.append(figures.curves(f"curves-{len(made)}", caption, lines, what))
    return made


# --- infeasible trials and execution --------------------------------------------------------------


def _infeasible(trials: Sequence[Record]) -> Table | None:
    bad = [trial for trial in trials if trial["state"] == "infeasible"]
    rows = [
        [str(trial["number"]), trial.get("reason") or "", _params(trial)]
        for trial in bad[:INFEASIBLE]
    ]
    more = f", the first {INFEASIBLE} of {len(bad)}" if len(bad) > INFEASIBLE else ""
    table = Table(f"Infeasible trials{more}", ["trial", "reason", "values"], rows, wide=(1, 2))
    return table if rows else None


def _params(trial: Record) -> str:
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={spaces.words(value)}"
        for key, value in trial["params"].items()
    )


def _structures(structures: Mapping[str, Record]) -> Table | None:
    parts = ("n_params", "execution_mode", "chosen", "width", "compile_seconds")
    rows = [[name, *(one.get(part) for part in parts)] for name, one in structures.items()]
    header = ["structure", "parameters", "execution mode", "chosen by", "trials at once",
              "compile seconds"]  # fmt: skip
    return Table("Structures, each compiled once per worker", header, rows) if rows else None
