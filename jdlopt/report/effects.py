"""Gains with their intervals, in words and as a forest plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jdlopt.report.figures import COLOURS, LEGEND, scale, trace
from jdlopt.report.page import Figure
from jdlopt.study.records import Record

ROW_PIXELS = 46
"""The height of a technique in a forest plot."""


def gain(value: object) -> str:
    """Returns a gain with its sign; a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return "0" if value == 0 else f"{value:+.4g}".replace("-", "−")


def interval(effect: Record | None) -> str:
    """Returns an effect in words: its mean and its interval."""
    if not effect:
        return "–"
    low, high = effect["interval"]
    if low is None or high is None:
        return f"{gain(effect['mean'])} (too few seeds)"
    return f"{gain(effect['mean'])} ({gain(low)} to {gain(high)})"


def pair(effect: Record | None) -> tuple[str, str]:
    """Returns an effect as a number and what stands below it: its mean and its interval."""
    if not effect:
        return "–", ""
    low, high = effect["interval"]
    few = low is None or high is None
    return gain(effect["mean"]), "too few seeds" if few else f"{gain(low)} to {gain(high)}"


def ratio(value: object) -> str:
    """Returns how many times as much something is; a dash where it is not known."""
    return f"{value:.3g}×" if isinstance(value, int | float) else "–"


def shown(value: object) -> str:
    """Returns a config's value as a reader would write it."""
    if isinstance(value, list):
        return ", ".join(shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def changes(change: Mapping[str, object]) -> str:
    """Returns changed config keys in words."""
    return ", ".join(f"{key} = {shown(value)}" for key, value in change.items())


def forest(
    name: str,
    caption: str,
    rows: Sequence[str],
    series: Sequence[tuple[str, Sequence[Record | None]]],
) -> Figure:
    """Returns effects with their intervals, a row each.

    Args:
      name: the element's id.
      caption: what stands under it.
      rows: the names.
      series: label and effects, one a row or None.
    """
    data = []
    for index, (label, effects) in enumerate(series):
        known = [
            (place, one) for place, one in enumerate(effects) if one and None not in one["interval"]
        ]
        if not known:
            continue
        shift = 0.16 * (index - (len(series) - 1) / 2)
        data.append(
            trace(
                "markers",
                [one["mean"] for _, one in known],
                [place + shift for place, _ in known],
                name=label,
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "array": [one["interval"][1] - one["mean"] for _, one in known],
                    "arrayminus": [one["mean"] - one["interval"][0] for _, one in known],
                },
                marker={
                    "size": 9,
                    "color": COLOURS[index],
                    "symbol": ("circle", "diamond")[index % 2],
                },
                text=[rows[place] for place, _ in known],
                hovertemplate="%{text}: %{x:+.4g}<extra></extra>",
            )
        )
    layout = {
        "showlegend": len(data) > 1,
        "legend": LEGEND,
        "xaxis": scale("gain", zeroline=True, zerolinewidth=2),
        "yaxis": scale(
            "",
            tickvals=list(range(len(rows))),
            ticktext=[f"{row} " for row in rows],
            range=[len(rows) - 0.5, -0.5],
            showgrid=False,
            zeroline=False,
        ),
    }
    said = "; ".join(
        f"{row}: {interval(effects[place])} {label}"
        for place, row in enumerate(rows)
        for label, effects in series
        if effects[place]
    )
    height = 110 + ROW_PIXELS * len(rows)
    return Figure(name, caption, f"{caption}. {said}.", data, layout, height)
