"""The figures of a study: how each searched key acted on the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdlopt.report import page
from jdlopt.report.figures import BAD, BEST, COLOURS, GREY, scale
from jdlopt.study.space import words as words_of

POINTS = 800
"""Trials that a figure shows at most: the best half of them, and others evenly."""
LINES = 150
"""Trials in parallel coordinates, the best ones."""
NO_PLACE = -0.16
"""Where a line goes through a key that its trial does not have."""

Row = Mapping[str, Any]
Trial = Mapping[str, Any]


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that ended with a value."""
    return [trial for trial in trials if trial["state"] == "done" and trial["values"]]


def _few(trials: Sequence[Trial], up: bool) -> list[Trial]:
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


def _places(row: Row, trials: Sequence[Trial]) -> list[Any]:
    """Where trials are on a key's axis; those of one choice side by side."""
    key = row["key"]
    if row["kind"] != "choice":
        return [trial["params"][key] for trial in trials]
    names = [words_of(choice) for choice in row["choices"]]
    golden = 0.6180339887
    return [
        names.index(words_of(trial["params"][key])) + 0.5 * ((trial["number"] * golden) % 1 - 0.5)
        for trial in trials
    ]


def _across(row: Row, title: str = "") -> dict[str, Any]:
    """The horizontal axis of a key."""
    if row["kind"] != "choice":
        log = bool(row.get("log"))
        low, high = np.log10([row["low"], row["high"]]) if log else (row["low"], row["high"])
        room = 0.04 * (high - low)  # so that points on the ends are seen whole
        ticks = _decades(row["low"], row["high"]) if log else {"nticks": 6}
        return scale(title, log, range=[float(low - room), float(high + room)], **ticks)
    names = [words_of(choice) for choice in row["choices"]]
    return scale(
        title,
        tickvals=list(range(len(names))),
        ticktext=[page.text(name if len(name) <= 24 else f"{name[:22]}…") for name in names],
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
        zeroline=False,
    )


def _decades(low: float, high: float) -> dict[str, Any]:
    """Ticks of a log axis: powers of ten, and 2 and 5 between them where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 5))
    between = (1, 2, 5) if last - first <= 2 else (1,)
    values = [digit * 10.0**power for power in range(first, last + 1, step) for digit in between]
    values = [value for value in values if 0.9 * low <= value <= 1.1 * high]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def axis(
    name: str,
    row: Row,
    trials: Sequence[Trial],
    objective: str,
    up: bool,
    best: int | None,
) -> str:
    """The objective against one key, a point a trial; infeasible ones beyond the worst value."""
    key = row["key"]
    have = [trial for trial in trials if key in trial["params"]]
    done = _few([t for t in have if t["state"] in ("done", "pruned") and t["values"]], up)
    bad = [t for t in have if t["state"] == "infeasible"][:POINTS]
    done = sorted(done, key=lambda t: t["number"] == best)  # drawn last: on top
    values = [t["values"][0] for t in done]
    low, high = window([t["values"][0] for t in finished(done)] or values, up)
    span = (high - low) or abs(high) or 1.0
    foot = low - 0.12 * span if up else high + 0.12 * span
    beyond = "triangle-down" if up else "triangle-up"
    off = [value < low if up else value > high for value in values]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": _places(row, done),
            "y": [min(max(value, low), high) for value in values],
            "text": [_hover(t, key, objective) for t in done],
            "hoverinfo": "text",
            "marker": {
                "line": {"width": [1.5 if t["state"] == "pruned" else 0 for t in done]},
                "size": [12 if t["number"] == best else 7 for t in done],
                "opacity": 0.8,
                "color": [BEST if t["number"] == best else COLOURS[0] for t in done],
                "symbol": [
                    "star" if t["number"] == best
                    else beyond if is_off
                    else "circle" if t["state"] == "done" else "circle-open"
                    for t, is_off in zip(done, off)
                ],
            },
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": _places(row, bad),
            "y": [foot] * len(bad),
            "text": [_hover(t, key, "") for t in bad],
            "hoverinfo": "text",
            "marker": {"symbol": "x", "size": 7, "color": BAD},
        },
    ]  # fmt: skip
    rest = 0.06 * span
    limits = [(foot if bad and up else low) - rest, (foot if bad and not up else high) + rest]
    layout = {
        "xaxis": _across(row),
        "yaxis": scale("", range=limits, nticks=6),
        "margin": {"l": 50, "r": 10, "t": 8, "b": 30},
    }
    words = f"{objective} against {key}: {len(done)} trials, {len(bad)} infeasible."
    if best is not None and any(t["number"] == best for t in done):
        found = next(t for t in done if t["number"] == best)
        words += f" The best trial has {words_of(found['params'][key])}."
    if any(off):
        words += f" {sum(off)} lie beyond the range that is shown."
    role = f" ({row['role']})" if row.get("role") else ""
    return page.figure(name, f"{key}{role}", words, data, layout, 260)


def _hover(trial: Trial, key: str, objective: str) -> str:
    value = trial["params"][key]
    shown = f"{value:.4g}" if isinstance(value, float) else words_of(value)
    said = f"{objective} {page.number(trial['values'][0])}" if objective else "infeasible"
    state = ", pruned" if trial["state"] == "pruned" else ""
    return page.text(f"trial {trial['number']}{state}: {said} at {shown}")


def isolation(name: str, row: Row, trials: Sequence[Trial], objective: str, up: bool) -> str:
    """The best over all other keys, for each value (or each tenth of the range) of one key."""
    key = row["key"]
    done = [t for t in finished(trials) if key in t["params"]]
    groups: dict[Any, list[Trial]] = {}
    for trial in done:
        groups.setdefault(_bin(row, trial["params"][key]), []).append(trial)
    pick = max if up else min
    best = {one: pick(some, key=lambda t: t["values"][0]) for one, some in groups.items()}
    discrete = row["kind"] == "choice"
    names = [words_of(choice) for choice in row.get("choices", ())]
    order = sorted(groups, key=names.index if discrete else float)
    shown = _few(done, up)
    low, high = window([t["values"][0] for t in done], up)
    rest = 0.08 * ((high - low) or abs(high) or 1.0)
    errors = [best[one].get("interval") for one in order]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": _places(row, shown),
            "y": [t["values"][0] for t in shown],
            "marker": {"size": 5, "color": GREY, "opacity": 0.5},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers" if discrete else "lines+markers",
            "x": [names.index(one) for one in order] if discrete else order,
            "y": [best[one]["values"][0] for one in order],
            "text": [
                page.text(
                    f"{one}: {page.number(best[one]['values'][0])}, the best of "
                    f"{len(groups[one])} trials (trial {best[one]['number']})"
                )
                for one in order
            ],
            "hoverinfo": "text",
            "marker": {"size": 11, "color": COLOURS[0]},
            "line": {"color": COLOURS[0]},
        },
    ]
    if order and all(errors):
        half = [(one[0][1] - one[0][0]) / 2 for one in errors if one]
        data[1]["error_y"] = {"type": "data", "array": half, "color": COLOURS[0]}
        rest = max(rest, *half)
    layout = {
        "xaxis": _across(row, key),
        "yaxis": scale(f"best {objective}", range=[low - rest, high + rest]),
    }
    words = "; ".join(
        f"{one}: {page.number(best[one]['values'][0])} of {len(groups[one])} trials"
        for one in order
    )
    caption = f"{key}: the best over everything else (large), and every trial (small)"
    return page.figure(name, caption, f"{caption}. {words}.", data, layout, 340)


def _bin(row: Row, value: Any) -> Any:
    if row["kind"] == "choice":
        return words_of(value)
    if row["kind"] == "int" and row["high"] - row["low"] <= 12:
        return value
    forward, back = (np.log, np.exp) if row.get("log") else (float, float)
    low, high = forward(row["low"]), forward(row["high"])
    place = min(9, int(10 * (forward(value) - low) / (high - low)))
    return float(f"{back(low + (place + 0.5) * (high - low) / 10):.3g}")


def parallel(
    name: str,
    space: Sequence[Row],
    trials: Sequence[Trial],
    objective: str,
    up: bool,
) -> str:
    """Parallel coordinates: a line a trial over all keys, its colour by the objective."""
    done = sorted(finished(trials), key=lambda t: t["values"][0], reverse=not up)[-LINES:]
    bad = [t for t in trials if t["state"] == "infeasible"][: LINES // 3]
    values = np.array([t["values"][0] for t in done])
    low, high = window(list(values), up)
    ranks = np.arange(len(done)) / max(1, len(done) - 1)
    heights = [float((min(max(v, low), high) - low) / ((high - low) or 1.0)) for v in values]
    data = [
        _line(space, trial, NO_PLACE, BAD, 1.0, 0.6, "dot") for trial in bad
    ]  # an infeasible trial ends below the worst value
    for trial, rank, height in zip(done, ranks, heights):
        best = trial is done[-1]
        colour = BEST if best else _shade(float(rank))
        width = 3.0 if best else 1 + 1.2 * float(rank) ** 4
        strength = 1.0 if best else 0.25 + 0.65 * float(rank) ** 2
        data.append(_line(space, trial, height, colour, width, strength, "solid"))
    notes = [note for index, row in enumerate(space) for note in _marks(index, row)]
    notes += [_mark(len(space), 1.0, page.number(high)), _mark(len(space), 0.0, page.number(low))]
    missing = any(row["key"] not in t["params"] for t in done for row in space)
    notes += [_mark(len(space), NO_PLACE, "infeasible")] if bad else []
    notes += [
        _mark(index, NO_PLACE, "not there")
        for index, row in enumerate(space)
        if any(row["key"] not in t["params"] for t in done)
    ]
    keys = [*(row["key"] for row in space), objective]
    foot = NO_PLACE - 0.08 if missing or bad else -0.08
    layout = {
        "xaxis": {
            "tickvals": list(range(len(keys))),
            "ticktext": [page.text(short) for short in shortened(keys)],
            "range": [-0.35, len(keys) - 0.35],
            "zeroline": False,
        },
        "yaxis": {"visible": False, "range": [foot, 1.1]},
        "annotations": notes,
        "margin": {"l": 20, "r": 20, "t": 10, "b": 40},
    }
    words = f"A line for each of {len(done)} trials over {', '.join(keys)}; the darker the better."
    if done:
        found = ", ".join(f"{key}={words_of(value)}" for key, value in done[-1]["params"].items())
        words += f" The best one has {found}."
    caption = "A line a trial, the stronger the better; the best in orange"
    caption += ", infeasible ones dotted." if bad else "."
    return page.figure(name, caption, words, data, layout, 440, 110 * len(keys))


def shortened(keys: Sequence[str]) -> list[str]:
    """Returns the last part of each key, or more where that does not tell them apart.

    Example:
      >>> shortened(["optim.learning_rate", "model.name", "optim.name"])
      ['learning_rate', 'model.name', 'optim.name']
    """
    last = [key.rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last)]


def _line(
    space: Sequence[Row],
    trial: Trial,
    height: float,
    colour: str,
    width: float,
    opacity: float,
    dash: str,
) -> dict[str, Any]:
    places = [_place(row, trial["params"]) for row in space]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(len(space) + 1)),
        "y": [*places, height],
        "name": f"trial {trial['number']}",
        "hoverinfo": "name",
        "opacity": opacity,
        "line": {"color": colour, "width": width, "dash": dash},
    }


def _shade(rank: float) -> str:
    light, dark = (150, 168, 190), (48, 108, 184)
    mixed = [round(a + (b - a) * rank**1.5) for a, b in zip(light, dark)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def _place(row: Row, params: Mapping[str, Any]) -> float:
    if row["key"] not in params:
        return NO_PLACE
    value = params[row["key"]]
    if row["kind"] == "choice":
        names = [words_of(choice) for choice in row["choices"]]
        return names.index(words_of(value)) / max(1, len(names) - 1)
    forward = np.log if row.get("log") else float
    low, high = forward(row["low"]), forward(row["high"])
    return float((forward(value) - low) / (high - low))


def _marks(index: int, row: Row) -> list[dict[str, Any]]:
    if row["kind"] == "choice":
        names = [words_of(choice) for choice in row["choices"]]
        step = max(1, len(names) // 8)
        last = max(1, len(names) - 1)
        return [_mark(index, place / last, names[place]) for place in range(0, len(names), step)]
    return [_mark(index, 0.0, f"{row['low']:g}"), _mark(index, 1.0, f"{row['high']:g}")]


def _mark(index: int, height: float, words: str) -> dict[str, Any]:
    """A value beside an axis, on the page's own colour so that lines don't strike it out."""
    return {
        "x": index,
        "y": height,
        "text": page.text(words if len(words) <= 16 else f"{words[:15]}…"),
        "showarrow": False,
        "font": {"size": 11},
        "xanchor": "left",
        "xshift": 3,
        "yanchor": "bottom" if height >= 1 else "middle" if height > 0 else "top",
    }


def importance(name: str, shares: Mapping[str, float], method: str) -> str:
    """How much each key matters, a bar each."""
    order = sorted(shares, key=lambda key: shares[key])
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [shares[key] for key in order],
            "y": [page.text(key) for key in order],
            "text": [f"{shares[key]:.0%}" for key in order],
            "textposition": "outside",
            "cliponaxis": False,
            "hoverinfo": "skip",
            "marker": {"color": COLOURS[0]},
        }
    ]
    words = "; ".join(f"{key} {shares[key]:.0%}" for key in reversed(order))
    most = max(shares.values(), default=1.0)
    layout = {
        "xaxis": scale("share", tickformat=".0%", range=[0, 1.12 * most or 1.0], nticks=6),
        "yaxis": {"automargin": True, "type": "category"},
        "bargap": 0.4,
    }
    return page.figure(name, f"By {method}.", f"{words}.", data, layout, 90 + 34 * len(order))


def front(
    name: str,
    trials: Sequence[Trial],
    on_front: Sequence[int],
    objectives: Sequence[Mapping[str, str]],
    other: int = 1,
) -> str:
    """The first objective against another, the Pareto front marked.

    Args:
      name: the element's id.
      trials: of the study.
      on_front: the numbers of those that none is better than in all objectives.
      objectives: name and direction of each.
      other: which objective lies across.
    """
    done = finished(trials)
    best = sorted((t for t in done if t["number"] in on_front), key=lambda t: t["values"][other])
    rest = _few(
        [t for t in done if t["number"] not in on_front], objectives[0]["direction"] == "maximize"
    )
    across = [t["values"][other] for t in done]
    log = bool(across) and min(across) > 0 and max(across) > 20 * min(across)
    # a trial is as good as all that it beats: the step's corner lies on the worse side
    shape = "hv" if objectives[other]["direction"] == "minimize" else "vh"
    two = len(objectives) == 2
    data = [
        {
            "type": "scatter",
            "mode": mode,
            "x": [t["values"][other] for t in some],
            "y": [t["values"][0] for t in some],
            "text": [page.text(_both(t, objectives)) for t in some],
            "hoverinfo": "text",
            "marker": {"color": colour, "size": size},
            "line": {"color": colour, "shape": shape},
        }
        for some, mode, colour, size in (
            (rest, "markers", GREY, 7),
            (best, "lines+markers" if two else "markers", BEST, 10),
        )
    ]
    layout = {
        "xaxis": scale(objectives[other]["name"], log),
        "yaxis": scale(objectives[0]["name"]),
    }
    words = f"{len(best)} of {len(done)} trials are on the Pareto front."
    found = "; ".join(_both(t, objectives) for t in best[:12])
    return page.figure(name, words, f"{words} {found}.", data, layout, 400)


def _both(trial: Trial, objectives: Sequence[Mapping[str, str]]) -> str:
    said = ", ".join(
        f"{one['name']} {page.number(value)}" for one, value in zip(objectives, trial["values"])
    )
    return f"trial {trial['number']}: {said}"
