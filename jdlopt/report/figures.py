"""The figures of reports, as Plotly's data and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdlopt.report import page

COLOURS = ("#3b78c2", "#d08a2e", "#3f9b6c", "#b4566b", "#7a67b8", "#5b8a9a")
"""Told apart on light and on dark, and by most people who see colours otherwise."""
GREY = "#8a9096"
POINTS = 300
"""Points a curve has at most."""
SCALE = [[0.0, "#c9d6e6"], [0.5, "#5b8fd0"], [1.0, "#173d73"]]


def _axis(title: str, log: bool = False, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "type": "log" if log else "-", **more} if log else {
        "title": {"text": title}, **more,
    }  # fmt: skip


def thinned(values: Sequence[Any]) -> list[Any]:
    """Returns at most `POINTS` of some values, evenly, the last one among them."""
    if len(values) <= POINTS:
        return list(values)
    places = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))
    return [values[place] for place in places]


def curves(name: str, title: str, lines: Sequence[Mapping[str, Any]], what: str) -> str:
    """Curves by step; a line has ``label``, ``steps``, ``values``, ``colour`` and ``dash``."""
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": line["label"],
            "x": thinned(line["steps"]),
            "y": thinned(line["values"]),
            "line": {
                "color": COLOURS[line["colour"] % len(COLOURS)],
                "dash": line.get("dash", "solid"),
                "width": 2,
            },
        }
        for line in lines
    ]
    ends = "; ".join(
        f"{line['label']} ends at {page.number(float(line['values'][-1]))}"
        for line in lines
        if len(line["values"])
    )
    layout = {
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.22},
        "xaxis": _axis("step"),
        "yaxis": _axis(what),
        "margin": {"l": 60, "r": 15, "t": 10, "b": 30},
    }
    return page.figure(name, title, f"{title}. {ends}.", data, layout, 380)


def _label(value: Any) -> str:
    return str(value)


def axis(
    name: str,
    row: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    objective: str,
    best: int | None,
) -> str:
    """The objective against one key, a point a trial; infeasible trials as crosses at the foot."""
    key = row["key"]
    have = [trial for trial in trials if key in trial["params"]]
    done = [t for t in have if t["state"] in ("done", "pruned") and t["values"]]
    bad = [t for t in have if t["state"] == "infeasible"]
    discrete = row["kind"] == "choice"

    def value(trial: Mapping[str, Any]) -> Any:
        return _label(trial["params"][key]) if discrete else trial["params"][key]

    low = min((t["values"][0] for t in done), default=0.0)
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [value(t) for t in done],
            "y": [t["values"][0] for t in done],
            "text": [f"trial {t['number']}" for t in done],
            "marker": {
                "size": 7,
                "opacity": 0.75,
                "color": [COLOURS[1] if t["number"] == best else COLOURS[0] for t in done],
                "symbol": ["circle" if t["state"] == "done" else "circle-open" for t in done],
            },
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [value(t) for t in bad],
            "y": [low] * len(bad),
            "text": [f"trial {t['number']}: infeasible" for t in bad],
            "marker": {"symbol": "x", "size": 7, "color": COLOURS[3]},
        },
    ]
    layout = {
        "xaxis": _axis("", bool(row.get("log"))),
        "yaxis": _axis(""),
        "margin": {"l": 50, "r": 10, "t": 8, "b": 30},
    }
    words = f"{objective} against {key}: {len(done)} trials, {len(bad)} infeasible."
    return page.figure(name, key, words, data, layout, 240)


def isolation(
    name: str, row: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], objective: str, up: bool
) -> str:
    """The best over all other keys, for each value (or each tenth of the range) of one key."""
    key = row["key"]
    done = [t for t in trials if t["state"] == "done" and t["values"] and key in t["params"]]
    groups: dict[Any, list[float]] = {}
    for trial in done:
        groups.setdefault(_bin(row, trial["params"][key]), []).append(trial["values"][0])
    order = sorted(groups, key=lambda one: (isinstance(one, str), one))
    best = [max(groups[one]) if up else min(groups[one]) for one in order]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if row["kind"] != "choice" else "markers",
            "x": order,
            "y": best,
            "text": [f"of {len(groups[one])} trials" for one in order],
            "marker": {"size": 10, "color": COLOURS[0]},
            "line": {"color": COLOURS[0]},
        }
    ]
    layout = {
        "xaxis": _axis(key, bool(row.get("log"))),
        "yaxis": _axis(f"best {objective}"),
    }
    words = "; ".join(f"{one}: {page.number(value)}" for one, value in zip(order, best))
    return page.figure(name, f"{key}: the best over everything else", words, data, layout, 300)


def _bin(row: Mapping[str, Any], value: Any) -> Any:
    if row["kind"] == "choice":
        return _label(value)
    if row["kind"] == "int" and row["high"] - row["low"] <= 12:
        return value
    forward, back = (np.log, np.exp) if row.get("log") else (float, float)
    low, high = forward(row["low"]), forward(row["high"])
    place = min(9, int(10 * (forward(value) - low) / (high - low)))
    return float(f"{back(low + (place + 0.5) * (high - low) / 10):.3g}")


def parallel(
    name: str,
    space: Sequence[Mapping[str, Any]],
    trials: Sequence[Mapping[str, Any]],
    objective: str,
    up: bool,
) -> str:
    """Parallel coordinates: a line a trial over all keys, its colour by the objective."""
    done = [t for t in trials if t["state"] == "done" and t["values"]]
    done.sort(key=lambda t: t["values"][0], reverse=not up)
    done = done[-150:]
    values = np.array([t["values"][0] for t in done])
    ranks = np.argsort(np.argsort(values if up else -values)) / max(1, len(done) - 1)
    keys = [*(row["key"] for row in space), objective]
    span = float(np.ptp(values)) or 1.0
    data = []
    for trial, rank in zip(done, ranks):
        places: list[float | None] = [_place(row, trial["params"].get(row["key"])) for row in space]
        places.append(float((trial["values"][0] - values.min()) / span))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": list(range(len(keys))),
                "y": places,
                "text": [f"trial {trial['number']}"] * len(keys),
                "hoverinfo": "text",
                "connectgaps": True,
                "opacity": 0.25 + 0.65 * float(rank) ** 2,
                "line": {"color": _shade(float(rank)), "width": 1 + 1.5 * float(rank) ** 4},
            }
        )
    ends = [_ends(row) for row in space]
    ends.append((page.number(float(values.min())), page.number(float(values.max()))))
    notes = [
        {
            "x": index,
            "y": y,
            "text": page.text(end[high]),
            "showarrow": False,
            "font": {"size": 11},
            "yanchor": "bottom" if high else "top",
        }
        for index, end in enumerate(ends)
        for high, y in ((0, -0.02), (1, 1.02))
    ]
    layout = {
        "xaxis": {
            "tickvals": list(range(len(keys))),
            "ticktext": [page.text(key.rpartition(".")[2]) for key in keys],
            "range": [-0.3, len(keys) - 0.7],
            "zeroline": False,
        },
        "yaxis": {"visible": False, "range": [-0.12, 1.12]},
        "annotations": notes,
        "margin": {"l": 20, "r": 20, "t": 10, "b": 40},
    }
    words = f"A line for each of {len(done)} trials over {', '.join(keys)}; the darker the better."
    return page.figure(name, "The darker a line, the better its trial.", words, data, layout, 400)


def _shade(rank: float) -> str:
    light, dark = (190, 202, 216), (31, 95, 168)
    mixed = [round(a + (b - a) * rank**1.5) for a, b in zip(light, dark)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def _place(row: Mapping[str, Any], value: Any) -> float | None:
    if value is None and row["kind"] != "choice":
        return None
    if row["kind"] == "choice":
        labels = [_label(choice) for choice in row["choices"]]
        label = _label(value)
        return labels.index(label) / max(1, len(labels) - 1) if label in labels else None
    forward = np.log if row.get("log") else float
    low, high = forward(row["low"]), forward(row["high"])
    return float((forward(value) - low) / (high - low))


def _ends(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["kind"] == "choice":
        return _label(row["choices"][0]), _label(row["choices"][-1])
    return f"{row['low']:g}", f"{row['high']:g}"


def importance(name: str, shares: Mapping[str, float], method: str) -> str:
    """How much each key matters, a bar each."""
    order = sorted(shares, key=lambda key: shares[key])
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [shares[key] for key in order],
            "y": order,
            "marker": {"color": COLOURS[0]},
        }
    ]
    words = "; ".join(f"{key} {shares[key]:.0%}" for key in reversed(order))
    layout = {
        "xaxis": _axis("share", tickformat=".0%"),
        "yaxis": {"automargin": True},
    }
    return page.figure(name, f"By {method}.", words, data, layout, 90 + 34 * len(order))


def front(
    name: str,
    trials: Sequence[Mapping[str, Any]],
    on_front: Sequence[int],
    objectives: Sequence[Mapping[str, str]],
) -> str:
    """The first two objectives against each other, the Pareto front marked."""
    done = [t for t in trials if t["state"] == "done" and t["values"]]
    best = sorted((t for t in done if t["number"] in on_front), key=lambda t: t["values"][1])
    data = [
        {
            "type": "scatter",
            "mode": mode,
            "x": [t["values"][1] for t in some],
            "y": [t["values"][0] for t in some],
            "text": [f"trial {t['number']}" for t in some],
            "marker": {"color": colour, "size": 8},
            "line": {"color": colour, "shape": "hv"},
        }
        for some, mode, colour in ((done, "markers", GREY), (best, "lines+markers", COLOURS[1]))
    ]
    layout = {
        "xaxis": _axis(objectives[1]["name"]),
        "yaxis": _axis(objectives[0]["name"]),
    }
    words = f"{len(best)} of {len(done)} trials are on the front."
    return page.figure(name, "The Pareto front", words, data, layout, 380)


# --- runs -----------------------------------------------------------------------------------------


def confusion(name: str, matrix: Any, classes: Sequence[str]) -> str:
    """The confusion matrix: true classes down, predicted ones across."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    labels = [f"{one} " for one in classes]  # a name that is a number must stay a name
    data = [
        {
            "type": "heatmap",
            "z": shares.tolist(),
            "x": labels,
            "y": labels,
            "text": counts.tolist(),
            "texttemplate": "%{text}" if len(classes) <= 20 else "",
            "colorscale": SCALE,
            "zmin": 0,
            "zmax": 1,
            "showscale": False,
            "hovertemplate": "true %{y}, predicted %{x}: %{text}<extra></extra>",
        }
    ]
    wrong = counts - np.diag(np.diag(counts))
    place = np.unravel_index(wrong.argmax(), wrong.shape)
    most = (
        f"Most often {classes[place[0]]} is taken for {classes[place[1]]}, {wrong.max()} times."
        if wrong.max()
        else "No example is confused."
    )
    layout = {
        "xaxis": _axis("predicted", type="category"),
        "yaxis": _axis("true", autorange="reversed", type="category", automargin=True),
        "margin": {"l": 70, "r": 15, "t": 10, "b": 55},
    }
    return page.figure(name, most, f"Confusion matrix. {most}", data, layout, 460)


def lines(
    name: str,
    caption: str,
    found: Sequence[tuple[str, Any, Any]],
    axes: tuple[str, str],
    diagonal: bool = False,
    markers: bool = False,
) -> str:
    """Several lines in a unit square, such as ROC curves; a legend where there are few."""
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers" if markers else "lines",
            "name": label,
            "x": thinned(list(x)),
            "y": thinned(list(y)),
            "line": {"color": COLOURS[index % len(COLOURS)], "width": 2},
        }
        for index, (label, x, y) in enumerate(found)
    ]
    if diagonal:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [0, 1],
                "y": [0, 1],
                "line": {"color": GREY, "dash": "dot", "width": 1},
                "showlegend": False,
                "hoverinfo": "skip",
            }
        )
    layout = {
        "showlegend": 1 < len(found) <= 12,
        "legend": {"orientation": "h", "y": -0.25, "font": {"size": 10}},
        "xaxis": _axis(axes[0], range=[-0.02, 1.02]),
        "yaxis": _axis(axes[1], range=[-0.02, 1.02]),
    }
    words = f"{caption} {len(found)} lines: {', '.join(label for label, *_ in found[:12])}."
    return page.figure(name, caption, words, data, layout, 380)


def scatter(name: str, caption: str, x: Any, y: Any, axes: tuple[str, str], line: bool) -> str:
    """Points, with the diagonal if ``line``."""
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": thinned(list(x)),
            "y": thinned(list(y)),
            "marker": {"color": COLOURS[0], "size": 6, "opacity": 0.7},
        }
    ]
    if line and len(x):
        ends = [float(min(np.min(x), np.min(y))), float(max(np.max(x), np.max(y)))]
        data.append(
            {"type": "scatter", "mode": "lines", "x": ends, "y": ends,
             "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip"}
        )  # fmt: skip
    layout = {"xaxis": _axis(axes[0]), "yaxis": _axis(axes[1])}
    return page.figure(name, caption, caption, data, layout, 360)
