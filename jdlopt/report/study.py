"""The report of a study: what it means, its best trials, and how the keys acted."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt.report import figures, keys, page, save
from jdlopt.report.contents import read_curves, read_study
from jdlopt.study import records
from jdlopt.study import space as spaces
from jdlopt.study.readings import readings

SHOWN = 10
"""Best trials in the table."""
CURVES = 5
"""Best trials with curves."""
LEVELS = {"warning": "Warning", "note": "Note", "good": "Fine"}


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` of a study, finished or not; returns its path.

    Raises:
      WorkdirError: ``study.json`` can't be read, or is none.
    """
    study = read_study(workdir)
    curves, damage = read_curves(workdir)
    trials, objectives = study["trials"], study["objectives"]
    order = records.best(trials, objectives)
    front = list(records.pareto(trials, objectives))
    if len(objectives) > 1:
        order = [*(n for n in order if n in front), *(n for n in order if n not in front)]
    by_number = {trial["number"]: trial for trial in trials}
    content = [_headline(study, by_number, order, front)]
    if damage:
        content.append(f"<p>{page.text(damage)}</p>")
    content.append(page.section("meaning", "What the study means", _readings(study, curves)))
    if order:
        best = [by_number[number] for number in order]
        content.append(page.section("best", "Best trials", _best(study, best[:SHOWN], workdir)))
        content.append(_curves(study, curves, best[:CURVES]))
    if len(objectives) > 1 and order:
        content.append(_fronts(study, front))
    if study["space"] and trials:
        content.append(_keys(study, order[0] if order else None))
        content.append(_importance(study))
    content += [_infeasible(trials), _how(study)]
    name = workdir.resolve().name
    source = study["config"]["data"]["source"]
    model = study["config"]["model"]["name"]
    sampler = str(study.get("sampler", "")).replace("_", "-")
    lead = f"A study of {model} on {source}: {sampler} search, {len(trials)} trials."
    versions = ", ".join(f"{key} {value}" for key, value in study["versions"].items())
    return save(workdir, page.page(f"Study {name}", lead, content, versions))


def _headline(
    study: Mapping[str, Any],
    trials: Mapping[int, Mapping[str, Any]],
    order: list[int],
    front: list[int],
) -> str:
    states = [trial["state"] for trial in trials.values()]
    objectives = study["objectives"]
    pairs = []
    if len(objectives) > 1 and order:
        for index, one in enumerate(objectives):
            pick = max if one["direction"] == "maximize" else min
            value = pick(trials[number]["values"][index] for number in order)
            pairs.append((f"best {one['name']}", page.number(value)))
        pairs.append(("trials on the front", str(len(front))))
    elif order:
        best = trials[order[0]]
        pairs.append((f"best {objectives[0]['name']}", _with_interval(best, 0)))
        pairs.append(("best trial", str(order[0])))
    for state in ("done", "pruned", "infeasible", "running"):
        if states.count(state) or state == "done":
            pairs.append((state, page.number(states.count(state))))
    spent = study["time"]
    pairs.append(("wall time", f"{spent['wall_seconds']:,.0f} s"))
    note = ""
    if study["status"] != "done":
        note = (
            f"<p>The study is not finished (its last word was “{page.text(study['status'])}”): "
            "this is what was known then. The same jdlopt tune command goes on with it.</p>"
        )
    if not order:
        note += "<p>No trial has finished with a value yet, so there is nothing to compare.</p>"
    return page.facts(pairs) + note


def _with_interval(trial: Mapping[str, Any], index: int) -> str:
    value = page.number(trial["values"][index])
    intervals = trial.get("interval") or []
    if index < len(intervals):
        low, high = intervals[index]
        value += f" <small>± {page.number(float(f'{(high - low) / 2:.2g}'))}</small>"
    return value


def _readings(study: Mapping[str, Any], curves: Any) -> str:
    rows = []
    for one in readings(study, curves):
        hint = f'<p class="hint">{page.text(one["suggestion"])}</p>' if one["suggestion"] else ""
        rows.append(
            f'<li class="{page.text(one["level"])}"><span class="level">'
            f"{LEVELS[one['level']]}</span><p>{page.text(one['text'])}</p>{hint}</li>"
        )
    return f'<ul class="readings">{"".join(rows)}</ul>'


# --- the best trials ------------------------------------------------------------------------------


def _best(study: Mapping[str, Any], best: list[Mapping[str, Any]], workdir: Path) -> str:
    names = [row["key"] for row in study["space"]]
    header = ["trial", *(one["name"] for one in study["objectives"]), *keys.shortened(names)]
    header.append("config")
    base = _base(study, workdir)
    rows, shown = [], []
    for trial in best:
        number = trial["number"]
        values = [_with_interval(trial, index) for index in range(len(trial["values"]))]
        params = [
            page.text(spaces.words(value)) if isinstance(value, list) else page.number(value)
            for value in (trial["params"].get(key) for key in names)
        ]
        config = _config(base, trial)
        flags = _flags(trial)
        parts = [("flags", "Copy flags", flags)]
        if config is not None:
            parts.insert(0, ("config", "Copy config", config))
        buttons = [_button(f"{kind}-{number}", words, number) for kind, words, _ in parts]
        rows.append([str(number), *values, *params, f"<td>{buttons[0]}</td>"])
        blocks = "".join(
            f'<p>{button}</p><pre class="long" tabindex="0" id="{kind}-{number}" '
            f'aria-label="{kind} of trial {number}">{page.text(words)}</pre>'
            for (kind, _, words), button in zip(parts, buttons)
        )
        shown.append(f"<details><summary>Config of trial {number}</summary>{blocks}</details>")
    many = len(study["objectives"]) > 1
    caption = f"The best {len(rows)} trials" + (", the Pareto front first" if many else "")
    if study.get("repeats", 1) > 1 or study.get("folds"):
        caption += ": mean ± half of its 95 % interval"
    how = (
        "<p>A copied config is a file for <code>jdlopt train --config=FILE.json</code>; flags go "
        "behind the study's own config file.</p>"
    )
    listed = f"<details><summary>Show the configs</summary>{''.join(shown)}</details>"
    return page.table(caption, header, rows) + how + listed


def _button(target: str, words: str, number: int) -> str:
    return (
        f'<button type="button" class="copy" data-copy="{target}" '
        f'aria-label="{words} of trial {number}">{words}</button>'
    )


def _flags(trial: Mapping[str, Any]) -> str:
    """A trial's values as flags that a shell takes as they are."""
    flags = []
    for key, value in trial["params"].items():
        if isinstance(value, list):
            words = ",".join(str(one) for one in value) + ("," if len(value) == 1 else "")
        else:
            words = str(value)
        flags.append(shlex.quote(f"--config.{key}={words}"))
    return " ".join(flags)


def _base(study: Mapping[str, Any], workdir: Path) -> tuple[dict[str, Any], set[str]] | None:
    """The best trial's config, which the others differ from by their params; and those keys."""
    try:
        config = json.loads((workdir / "best_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    best = next((t for t in study["trials"] if t["number"] == study.get("best")), None)
    if best is None or not isinstance(config, dict):
        return None
    return config, set(best["params"])


def _config(base: tuple[dict[str, Any], set[str]] | None, trial: Mapping[str, Any]) -> str | None:
    """A trial's whole config; None where the best one's can't be changed to it key by key."""
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


def _curves(study: Mapping[str, Any], curves: Any, best: list[Mapping[str, Any]]) -> str:
    names = [one["name"] for one in study["objectives"]]
    metrics = dict.fromkeys(
        metric
        for metric in (*names, "validation/loss", "validation/accuracy")
        if metric.startswith("validation/") and metric in curves
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
                    words = ", training" if dash == "dot" else ""
                    found.append(
                        {"label": f"trial {trial['number']}{words}", "colour": colour,
                         "steps": values.index.tolist(), "values": values.tolist(),
                         "dash": dash, "listed": dash == "solid"}
                    )  # fmt: skip
        if found:
            what = metric.partition("/")[2]
            both = any(line["dash"] == "dot" for line in found)
            caption = f"{what}: validation solid" + (", training dotted" if both else "")
            made.append(figures.curves(f"curves-{index}", caption, found, what))
    if not made:
        return ""
    wide = [f'<div class="wide">{one}</div>' for one in made]
    return page.section("curves", "How the best trials trained", *wide)


# --- the keys -------------------------------------------------------------------------------------


def _fronts(study: Mapping[str, Any], front: list[int]) -> str:
    made = [
        keys.front(f"pareto-{other}", study["trials"], front, study["objectives"], other)
        for other in range(1, len(study["objectives"]))
    ]
    return page.section("front", "Trade-offs", f'<div class="grid">{"".join(made)}</div>')


def _keys(study: Mapping[str, Any], best: int | None) -> str:
    objective = study["objectives"][0]
    up = objective["direction"] == "maximize"
    trials, space = study["trials"], study["space"]
    made = [
        keys.axis(f"axis-{index}", row, trials, objective["name"], up, best)
        for index, row in enumerate(space)
    ]
    end = "foot" if up else "top"
    content = [
        f"<p>{page.text(objective['name'])} ({'higher' if up else 'lower'} is better) against each "
        f"key: a point a trial, the best one a star; pruned trials are open circles, infeasible "
        f"ones crosses at the {end}; triangles lie beyond the range shown.</p>",
        f'<div class="grid">{"".join(made)}</div>',
    ]
    if not keys.finished(trials):
        return page.section("keys", "How the keys acted", *content)
    scientific = [row for row in space if row.get("role") == "scientific"]
    if scientific:
        content.append("<h3>What was asked</h3>")
        isolated = [
            keys.isolation(f"isolation-{index}", row, trials, objective["name"], up)
            for index, row in enumerate(scientific)
        ]
        content.append(f'<div class="grid">{"".join(isolated)}</div>')
    content.append("<h3>All keys together</h3>")
    content.append(keys.parallel("parallel", space, trials, objective["name"], up))
    return page.section("keys", "How the keys acted", *content)


def _importance(study: Mapping[str, Any]) -> str:
    shares, method = importances(study)
    if not shares:
        return page.section("importance", "What mattered", f"<p>{page.text(method)}</p>")
    left = [row["key"] for row in study["space"] if row["key"] not in shares]
    note = f"<p>Not judged, since only some trials have them: {page.text(', '.join(left))}.</p>"
    return page.section(
        "importance",
        "What mattered",
        keys.importance("importances", shares, method),
        note if left else "",
    )


def importances(study: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Returns each key's share of what moves the first objective, and by which method.

    fANOVA (Hutter et al., 2014) over all finished trials; where it can't be fitted, PED-ANOVA
    (Watanabe et al., 2023). Without either, no shares and the reason.
    """
    import optuna

    done = keys.finished(study["trials"])
    if len(done) < 8:
        return {}, f"Only {len(done)} trials finished: too few to say what mattered."
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
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            reason = str(error)
            continue
        if found and any(share > 0 for share in found.values()):
            return dict(found), f"{name} over {len(done)} trials"
        reason = "all trials are equal, or no key is in all of them."
    return {}, f"What mattered can't be told: {reason}"


# --- the rest -------------------------------------------------------------------------------------


def _infeasible(trials: Sequence[Mapping[str, Any]]) -> str:
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
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={spaces.words(value)}"
        for key, value in trial["params"].items()
    )


def _how(study: Mapping[str, Any]) -> str:
    rows = [
        [
            page.text(name),
            page.number(one.get("n_params")),
            page.text(one.get("formulation", "")),
            page.text(one.get("chosen", "")),
            page.number(one.get("width")),
            page.number(one.get("compile_seconds")),
        ]
        for name, one in study["structures"].items()
    ]
    spent = study["time"]
    words = (
        f"<p>{spent['wall_seconds']:,.0f} s with {spent['workers']} workers: "
        f"{spent['training_seconds']:,.0f} s of training and {spent['compile_seconds']:,.0f} s of "
        f"compiling over all workers, {spent['outside_share']:.0%} neither.</p>"
    )
    shown = page.table(
        "Structures, each compiled once a worker",
        ["structure", "parameters", "formulation", "chosen", "width", "compile seconds"],
        rows,
    )
    return page.section("how", "How it was computed", words, shown if rows else "")
