"""Parallel coordinates: a line a trial over all searched keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdlopt.report.figures import BAD, BEST, trace
from jdlopt.report.hyperparameters import finished, names_of, shortened, window
from jdlopt.report.page import Figure, Spec, number
from jdlopt.study.records import Record
from jdlopt.study.space import words

LINES = 150
"""Trials that are shown, the best ones."""
NO_PLACE = -0.16
"""Where a line goes through a key that its trial does not have."""


def parallel(
    name: str, space: Sequence[Record], trials: Sequence[Record], objective: str, up: bool
) -> Figure:
    """Returns a line a trial over all keys, the better the stronger; the best one in orange."""
    done = sorted(finished(trials), key=lambda t: t["values"][0], reverse=not up)[-LINES:]
    bad = [t for t in trials if t["state"] == "infeasible"][: LINES // 3]
    values = [t["values"][0] for t in done]
    low, high = window(values, up)
    heights = [float((min(max(v, low), high) - low) / ((high - low) or 1.0)) for v in values]
    # an infeasible trial ends below the worst value
    data = [_line(space, trial, NO_PLACE, 0.6, color=BAD, width=1.0, dash="dot") for trial in bad]
    for place, (trial, height) in enumerate(zip(done, heights)):
        rank = place / max(1, len(done) - 1)
        strength, colour, width = 0.25 + 0.65 * rank**2, _shade(rank), 1 + 1.2 * rank**4
        if trial is done[-1]:
            strength, colour, width = 1.0, BEST, 3.0
        data.append(_line(space, trial, height, strength, color=colour, width=width))
    lacking = [any(row["key"] not in t["params"] for t in done) for row in space]
    notes = [note for index, row in enumerate(space) for note in _marks(index, row)]
    notes += [_mark(len(space), 1.0, number(high)), _mark(len(space), 0.0, number(low))]
    notes += [_mark(len(space), NO_PLACE, "infeasible")] if bad else []
    notes += [_mark(index, NO_PLACE, "not set") for index, one in enumerate(lacking) if one]
    keys = [*(row["key"] for row in space), objective]
    foot = NO_PLACE - 0.08 if any(lacking) or bad else -0.08
    layout = {
        "xaxis": {
            "tickvals": list(range(len(keys))),
            "ticktext": shortened(keys),
            "range": [-0.35, len(keys) - 0.35],
            "zeroline": False,
        },
        "yaxis": {"visible": False, "range": [foot, 1.1]},
        "annotations": notes,
        "margin": {"l": 20, "r": 20, "t": 10, "b": 40},
    }
    said = f"A line for each of {len(done)} trials over {', '.join(keys)}; the darker the better."
    if done:
        found = ", ".join(f"{key}={words(value)}" for key, value in done[-1]["params"].items())
        said += f" The best one has {found}."
    caption = "A line a trial: the darker the better, the best one in orange"
    caption += ", infeasible ones dotted." if bad else "."
    return Figure(name, caption, said, data, layout, 440, 110 * len(keys))


def _line(
    space: Sequence[Record], trial: Record, height: float, opacity: float, **line: object
) -> Spec:
    return trace(
        "lines",
        list(range(len(space) + 1)),
        [*(_place(row, trial) for row in space), height],
        name=f"trial {trial['number']}",
        hoverinfo="name",
        opacity=opacity,
        line=line,
    )


def _shade(rank: float) -> str:
    light, dark = (150, 168, 190), (48, 108, 184)
    mixed = [round(a + (b - a) * rank**1.5) for a, b in zip(light, dark)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def _place(row: Record, trial: Record) -> float:
    if row["key"] not in trial["params"]:
        return NO_PLACE
    value = trial["params"][row["key"]]
    if row["kind"] == "choice":
        names = names_of(row)
        return names.index(words(value)) / max(1, len(names) - 1)
    forward = np.log if row.get("log") else float
    low, high = forward(row["low"]), forward(row["high"])
    return float((forward(value) - low) / (high - low))


def _marks(index: int, row: Record) -> list[Spec]:
    if row["kind"] != "choice":
        return [_mark(index, 0.0, f"{row['low']:g}"), _mark(index, 1.0, f"{row['high']:g}")]
    names = names_of(row)
    step, last = max(1, len(names) // 8), max(1, len(names) - 1)
    return [_mark(index, place / last, names[place]) for place in range(0, len(names), step)]


def _mark(index: int, height: float, text: str) -> Spec:
    """Returns a value beside an axis, on the page's own colour so that no line strikes it out."""
    return {
        "x": index,
        "y": height,
        "text": text if len(text) <= 16 else f"{text[:15]}…",
        "showarrow": False,
        "font": {"size": 11},
        "xanchor": "left",
        "xshift": 3,
        "yanchor": "bottom" if height >= 1 else "middle" if height > 0 else "top",
    }
