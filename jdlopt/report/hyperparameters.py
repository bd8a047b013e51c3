"""Figures of hyperparameter effects: the objective against each searched key."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jdlopt.report.figures import BAD, BEST, COLOURS, GREY, scale, trace
from jdlopt.report.page import Figure, Spec, number
from jdlopt.study.enqueue import BASE
from jdlopt.study.records import Record
from jdlopt.study.space import words

POINTS = 800
"""Trials that a figure shows at most: the best half of them, and others evenly."""
GOLDEN = 0.6180339887


def finished(trials: Sequence[Record]) -> list[Record]:
    """Returns the trials that ended with a value."""
    return [trial for trial in trials if trial["state"] == "done" and trial["values"]]


def few(trials: Sequence[Record], up: bool) -> list[Record]:
    """Returns at most `POINTS` trials: the best half, and others evenly."""
    if len(trials) <= POINTS:
        return list(trials)
    order = sorted(trials, key=lambda t: t["values"][0], reverse=up)
    best, rest = order[: POINTS // 2], order[POINTS // 2 :]
    places = np.unique(np.linspace(0, len(rest) - 1, POINTS // 2).round().astype(int))
    return [*best, *(rest[place] for place in places)]


def window(values: Sequence[float], up: bool) -> tuple[float, float]:
    """Returns the range to show: all good values, and no bad ones so far off that they hide all.

    Example:
      >>> window([0.1, 0.2, 0.3, 0.4, 1e6], up=False)[1] < 10
      True
    """
    if not len(values):
        return 0.0, 1.0
    found = np.asarray(values, float)
    low, high = float(found.min()), float(found.max())
    middle, best = float(np.median(found)), high if up else low
    reach = 4 * abs(middle - best) or high - low
    if up:
        return max(low, middle - reach), high
    return low, min(high, middle + reach)


def names_of(row: Record) -> list[str]:
    """Returns what the choices of a key are called; none where it is a range."""
    return [words(choice) for choice in row.get("choices") or ()]


def shortened(keys: Sequence[str]) -> list[str]:
    """Returns the last part of each key, or all of it where that is another's too.

    Example:
      >>> shortened(["optim.learning_rate", "model.name", "optim.name"])
      ['learning_rate', 'model.name', 'optim.name']
    """
    last = [key.rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last)]


def _places(row: Record, trials: Sequence[Record]) -> list[float]:
    """Returns where trials are on a key's axis; those of one choice side by side."""
    key, names = row["key"], names_of(row)
    if row["kind"] != "choice":
        return [trial["params"][key] for trial in trials]
    return [
        names.index(words(trial["params"][key])) + 0.5 * ((trial["number"] * GOLDEN) % 1 - 0.5)
        for trial in trials
    ]


def _across(row: Record, title: str = "") -> Spec:
    """Returns the horizontal axis of a key."""
    if row["kind"] != "choice":
        log = bool(row.get("log"))
        low, high = np.log10([row["low"], row["high"]]) if log else (row["low"], row["high"])
        room = 0.04 * (high - low)  # so that points on the ends are seen whole
        ticks = _decades(row["low"], row["high"]) if log else {"nticks": 6}
        return scale(title, log, range=[float(low - room), float(high + room)], **ticks)
    names = names_of(row)
    return scale(
        title,
        tickvals=list(range(len(names))),
        ticktext=[name if len(name) <= 24 else f"{name[:22]}…" for name in names],
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
        zeroline=False,
    )


def _decades(low: float, high: float) -> Spec:
    """Returns ticks of a log axis: powers of ten, with 2 and 5 between where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 5))
    between = (1, 2, 5) if last - first <= 2 else (1,)
    values = [digit * 10.0**power for power in range(first, last + 1, step) for digit in between]
    values = [value for value in values if 0.9 * low <= value <= 1.1 * high]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def effect(
    name: str,
    row: Record,
    trials: Sequence[Record],
    objective: str,
    up: bool,
    best: int | None,
) -> Figure:
    """Returns the objective against one key, a point a trial; infeasible ones beyond the worst.

    Args:
      name: the element's id.
      row: the key's, of the space.
      trials: of the study.
      objective: its name.
      up: whether more is better.
      best: the number of the best trial.
    """
    key = row["key"]
    have = [trial for trial in trials if key in trial["params"]]
    done = few([t for t in have if t["state"] in ("done", "pruned") and t["values"]], up)
    bad = [t for t in have if t["state"] == "infeasible"][:POINTS]
    # drawn last: on top
    done = sorted(done, key=lambda t: (t["number"] == best, t.get("origin") == BASE))
    values = [t["values"][0] for t in done]
    low, high = window(values, up)
    span = (high - low) or abs(high) or 1.0
    foot = low - 0.12 * span if up else high + 0.12 * span
    beyond = "triangle-down" if up else "triangle-up"
    off = [value < low if up else value > high for value in values]
    symbols = [
        "star" if t["number"] == best
        else "diamond" if t.get("origin") == BASE and not is_off
        else beyond if is_off
        else "circle" if t["state"] == "done" else "circle-open"
        for t, is_off in zip(done, off)
    ]  # fmt: skip
    marker = {
        "line": {"width": [1.5 if t["state"] == "pruned" else 0 for t in done]},
        "size": [12 if t["number"] == best or t.get("origin") == BASE else 7 for t in done],
        "opacity": 0.8,
        "color": [BEST if t["number"] == best else COLOURS[0] for t in done],
        "symbol": symbols,
    }
    data = [
        trace(
            "markers",
            _places(row, done),
            [min(max(value, low), high) for value in values],
            text=[_hover(t, key, objective) for t in done],
            hoverinfo="text",
            marker=marker,
        ),
        trace(
            "markers",
            _places(row, bad),
            [foot] * len(bad),
            text=[_hover(t, key, "") for t in bad],
            hoverinfo="text",
            marker={"symbol": "x", "size": 7, "color": BAD},
        ),
    ]
    rest = 0.06 * span
    limits = [(foot if bad and up else low) - rest, (foot if bad and not up else high) + rest]
    layout = {
        "xaxis": _across(row),
        "yaxis": scale("", range=limits, nticks=6),
        "margin": {"l": 50, "r": 10, "t": 8, "b": 30},
    }
    said = f"{objective} against {key}: {len(done)} trials, {len(bad)} infeasible."
    if best is not None and any(t["number"] == best for t in done):
        found = next(t for t in done if t["number"] == best)
        said += f" The best trial has {words(found['params'][key])}."
    if any(off):
        said += f" {sum(off)} lie beyond the range that is shown."
    role = f" ({row['role']})" if row.get("role") else ""
    return Figure(name, f"{key}{role}", said, data, layout, 260)


def _hover(trial: Record, key: str, objective: str) -> str:
    value = trial["params"][key]
    shown = f"{value:.4g}" if isinstance(value, float) else words(value)
    said = f"{objective} {number(trial['values'][0])}" if objective else "infeasible"
    state = ", pruned" if trial["state"] == "pruned" else ""
    return f"trial {trial['number']}{state}: {said} at {shown}"


def isolation(name: str, row: Record, trials: Sequence[Record], objective: str, up: bool) -> Figure:
    """Returns the best over all other keys, for each value, or tenth of the range, of one key."""
    key, names = row["key"], names_of(row)
    discrete = row["kind"] == "choice"
    done = [t for t in finished(trials) if key in t["params"]]
    groups: dict[str | float, list[Record]] = {}
    for trial in done:
        groups.setdefault(_bin(row, trial["params"][key]), []).append(trial)
    pick = max if up else min
    best = {one: pick(some, key=lambda t: t["values"][0]) for one, some in groups.items()}
    order = sorted(groups, key=lambda one: names.index(str(one)) if discrete else float(one))
    shown = few(done, up)
    low, high = window([t["values"][0] for t in done], up)
    rest = 0.08 * ((high - low) or abs(high) or 1.0)
    value_of = {one: number(best[one]["values"][0]) for one in order}
    found = trace(
        "markers" if discrete else "lines+markers",
        [names.index(str(one)) for one in order] if discrete else order,
        [best[one]["values"][0] for one in order],
        text=[
            f"{one}: {value_of[one]}, the best of {len(groups[one])} trials "
            f"(trial {best[one]['number']})"
            for one in order
        ],
        hoverinfo="text",
        marker={"size": 11, "color": COLOURS[0]},
        line={"color": COLOURS[0]},
    )
    intervals = [best[one].get("interval") for one in order]
    if order and all(intervals):
        half = [(one[0][1] - one[0][0]) / 2 for one in intervals if one]
        found["error_y"] = {"type": "data", "array": half, "color": COLOURS[0]}
        rest = max(rest, *half)
    every = trace(
        "markers",
        _places(row, shown),
        [t["values"][0] for t in shown],
        marker={"size": 5, "color": GREY, "opacity": 0.5},
        hoverinfo="skip",
    )
    layout = {
        "xaxis": _across(row, key),
        "yaxis": scale(f"best {objective}", range=[low - rest, high + rest]),
    }
    said = "; ".join(f"{one}: {value_of[one]} of {len(groups[one])} trials" for one in order)
    caption = f"{key}: the best over all other keys (large), and every trial (small)"
    return Figure(name, caption, f"{caption}. {said}.", [every, found], layout, 340)


def _bin(row: Record, value: float) -> str | float:
    if row["kind"] == "choice":
        return words(value)
    if row["kind"] == "int" and row["high"] - row["low"] <= 12:
        return value
    forward, back = (math.log, math.exp) if row.get("log") else (float, float)
    low, high = forward(row["low"]), forward(row["high"])
    place = min(9, int(10 * (forward(value) - low) / (high - low)))
    return float(f"{back(low + (place + 0.5) * (high - low) / 10):.3g}")
