"""The report of a study: what it means, its best trials, and how the keys acted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.errors import WorkdirError
from jdlopt.report import figures, page, save
from jdlopt.study import records
from jdlopt.study.readings import readings

SHOWN = 10
"""Best trials in the table."""
CURVES = 5
"""Best trials with curves."""
LEVELS = {"warning": "Warning", "note": "Note", "good": "Fine"}


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` of a study, finished or not; returns its path.

    Raises:
      WorkdirError: ``study.json`` can't be read.
    """
    path = workdir / "study.json"
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        trials, objectives = study["trials"], study["objectives"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path}: is not a study's: {error!r}.") from error
    curves = records.curves(workdir)
    order = records.best(trials, objectives)
    if len(objectives) > 1 and study["pareto"]:
        order = [*study["pareto"], *(n for n in order if n not in study["pareto"])]
    by_number = {trial["number"]: trial for trial in trials}
    content = [_headline(study, by_number, order)]
    content.append(page.section("meaning", "What the study means", _readings(study, curves)))
    if order:
        best = [by_number[number] for number in order]
        content.append(page.section("best", "Best trials", _best(study, best[:SHOWN])))
        content.append(_curves(study, curves, best[:CURVES]))
        content.append(_keys(study))
        content.append(_importance(study))
        if len(objectives) > 1:
            content.append(
                page.section(
                    "front",
                    "Trade-offs",
                    figures.front("pareto", trials, study["pareto"], objectives),
                )
            )
    content += [_infeasible(trials), _how(study)]
    name = workdir.resolve().name
    source = study["config"]["data"]["source"]
    model = study["config"]["model"]["name"]
    lead = f"A study of {model} on {source}: {study['sampler']} search, {len(trials)} trials."
    versions = ", ".join(f"{key} {value}" for key, value in study["versions"].items())
    return save(workdir, page.page(f"Study {name}", lead, content, versions))


def _headline(
    study: Mapping[str, Any], trials: Mapping[int, Mapping[str, Any]], order: list[int]
) -> str:
    states = [trial["state"] for trial in trials.values()]
    pairs = []
    if order:
        best = trials[order[0]]
        value = page.number(best["values"][0])
        if best.get("interval"):
            low, high = best["interval"][0]
            value += f" <small>± {page.number((high - low) / 2)}</small>"
        pairs.append((f"best {study['objectives'][0]['name']}", value))
        pairs.append(("best trial", str(order[0])))
    for state in ("done", "pruned", "infeasible", "running"):
        if states.count(state) or state == "done":
            pairs.append((state, page.number(states.count(state))))
    spent = study["time"]
    pairs.append(("wall time", f"{spent['wall_seconds']:.0f} s"))
    note = ""
    if study["status"] != "done":
        note = f"<p>The study is {page.text(study['status'])}: this is what is known so far.</p>"
    if not order:
        note += "<p>No trial has finished with a value yet, so there is nothing to compare.</p>"
    return page.facts(pairs) + note


def _readings(study: Mapping[str, Any], curves: Any) -> str:
    rows = []
    for one in readings(study, curves):
        hint = f'<p class="hint">{page.text(one["suggestion"])}</p>' if one["suggestion"] else ""
        rows.append(
            f'<li class="{page.text(one["level"])}"><span class="level">'
            f"{LEVELS[one['level']]}</span><p>{page.text(one['text'])}</p>{hint}</li>"
        )
    return f'<ul class="readings">{"".join(rows)}</ul>'


def _short(keys: list[str]) -> dict[str, str]:
    """The last part of each key, where that is enough to tell them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last)}


def _best(study: Mapping[str, Any], best: list[Mapping[str, Any]]) -> str:
    keys = [row["key"] for row in study["space"]]
    short = _short(keys)
    header = ["trial", *(one["name"] for one in study["objectives"])]
    header += [short[key] for key in keys] + ["config"]
    rows = []
    for trial in best:
        values = [page.number(value) for value in trial["values"]]
        for index, interval in enumerate(trial.get("interval") or []):
            values[index] += f" ± {page.number((interval[1] - interval[0]) / 2)}"
        params = [page.number(trial["params"].get(key)) for key in keys]
        words = "\n".join(
            f"--config.{key}={json.dumps(value) if not isinstance(value, str) else value}"
            for key, value in trial["params"].items()
        )
        name = f"config-{trial['number']}"
        cell = (
            f'<td class="text"><button type="button" data-copy="{name}">Copy</button>'
            f'<details><summary>Show</summary><pre id="{name}">{page.text(words)}</pre></details>'
            "</td>"
        )
        rows.append([str(trial["number"]), *values, *params, cell])
    return page.table(f"The best {len(rows)} trials", header, rows)


def _curves(study: Mapping[str, Any], curves: Any, best: list[Mapping[str, Any]]) -> str:
    monitored = study["objectives"][0]["name"]
    metrics = dict.fromkeys(
        [
            metric
            for metric in (monitored, "validation/loss")
            if metric.startswith("validation/") and metric in curves
        ]
    )
    made = []
    for index, metric in enumerate(metrics):
        training = f"train/{metric.partition('/')[2]}"
        found = []
        for colour, trial in enumerate(best):
            rows = curves[curves["trial"] == trial["number"]]
            for name, dash in ((metric, "solid"), (training, "dot")):
                if name not in rows:
                    continue
                values = rows[["step", name]].dropna().groupby("step")[name].mean()
                if len(values):
                    label = f"trial {trial['number']}" + (", training" if dash == "dot" else "")
                    found.append(
                        {"label": label, "steps": values.index.tolist(),
                         "values": values.tolist(), "colour": colour, "dash": dash}
                    )  # fmt: skip
        if found:
            what = metric.partition("/")[2]
            caption = f"{what}: validation solid, training dotted"
            made.append(figures.curves(f"curves-{index}", caption, found, what))
    if not made:
        return ""
    wide = [f'<div class="wide">{one}</div>' for one in made]
    return page.section("curves", "How the best trials trained", *wide)


def _keys(study: Mapping[str, Any]) -> str:
    objective = study["objectives"][0]
    up = objective["direction"] == "maximize"
    trials, space = study["trials"], study["space"]
    made = [
        figures.axis(f"axis-{index}", row, trials, objective["name"], study["best"])
        for index, row in enumerate(space)
    ]
    content = [
        f"<p>{page.text(objective['name'])} against each key; the best trial is marked, pruned "
        "trials are open circles, infeasible ones are crosses at the foot.</p>",
        f'<div class="grid">{"".join(made)}</div>',
    ]
    scientific = [row for row in space if row.get("role") == "scientific"]
    if scientific:
        content.append("<h3>What was asked</h3>")
        isolated = [
            figures.isolation(f"isolation-{index}", row, trials, objective["name"], up)
            for index, row in enumerate(scientific)
        ]
        content.append(f'<div class="grid">{"".join(isolated)}</div>')
    content.append("<h3>All keys together</h3>")
    content.append(figures.parallel("parallel", space, trials, objective["name"], up))
    return page.section("keys", "How the keys acted", *content)


def _importance(study: Mapping[str, Any]) -> str:
    shares, method = importances(study)
    if not shares:
        return page.section("importance", "What mattered", f"<p>{page.text(method)}</p>")
    return page.section(
        "importance", "What mattered", figures.importance("importances", shares, method)
    )


def importances(study: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Returns each key's share of what moves the first objective, and by which method.

    fANOVA (Hutter et al., 2014) over all finished trials; where it can't be fitted, PED-ANOVA
    (Watanabe et al., 2023). Without either, no shares and the reason.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    done = [t for t in study["trials"] if t["state"] == "done" and t["values"]]
    if len(done) < 8:
        return {}, f"Only {len(done)} trials finished: too few to say what mattered."
    kinds: dict[str, Any] = {}
    for row in study["space"]:
        if row["kind"] == "choice":
            kinds[row["key"]] = CategoricalDistribution([_label(one) for one in row["choices"]])
        elif row["kind"] == "int":
            kinds[row["key"]] = IntDistribution(row["low"], row["high"], row["log"], row["step"])
        else:
            kinds[row["key"]] = FloatDistribution(row["low"], row["high"], row["log"])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(direction=study["objectives"][0]["direction"])
    for trial in done:
        params = {
            key: _label(value) if isinstance(kinds[key], CategoricalDistribution) else value
            for key, value in trial["params"].items()
        }
        made.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={key: kinds[key] for key in params},
                value=trial["values"][0],
            )
        )
    evaluators: dict[str, Any] = {
        "fANOVA": lambda: optuna.importance.FanovaImportanceEvaluator(seed=0),
        "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator,
    }
    reason = ""
    for name, evaluator in evaluators.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = optuna.importance.get_param_importances(made, evaluator=evaluator())
            return dict(found), f"{name} over {len(done)} trials"
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            reason = str(error)
    return {}, f"What mattered can't be told: {reason}"


def _label(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _infeasible(trials: list[Mapping[str, Any]]) -> str:
    bad = [trial for trial in trials if trial["state"] == "infeasible"]
    if not bad:
        return ""
    rows = [
        [
            str(trial["number"]),
            f'<td class="text">{page.text(trial.get("reason") or "")}</td>',
            f'<td class="text">{page.text(_params(trial))}</td>',
        ]
        for trial in bad[:50]
    ]
    more = f", the first 50 of {len(bad)}" if len(bad) > 50 else ""
    shown = page.table(f"Infeasible trials{more}", ["trial", "why", "where"], rows)
    return page.section("infeasible", "Infeasible trials", shown)


def _params(trial: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in trial["params"].items()
    )


def _how(study: Mapping[str, Any]) -> str:
    rows = [
        [
            page.text(name),
            page.number(one.get("n_params")),
            page.text(one["formulation"]),
            page.text(one["chosen"]),
            page.number(one.get("width")),
            page.number(one.get("compile_seconds")),
        ]
        for name, one in study["structures"].items()
    ]
    spent = study["time"]
    words = (
        f"<p>{spent['wall_seconds']:.0f} s with {spent['workers']} workers: "
        f"{spent['training_seconds']:.0f} s of training and {spent['compile_seconds']:.0f} s of "
        f"compiling over all workers, {spent['outside_share']:.0%} neither.</p>"
    )
    shown = page.table(
        "Structures, each compiled once a worker",
        ["structure", "parameters", "formulation", "chosen", "width", "compile seconds"],
        rows,
    )
    return page.section("how", "How it was computed", words, shown if rows else "")
