"""The figures of curves and of a run, as Plotly's data and layout; a study's own are in `keys`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdlopt.report import page

COLOURS = ("#3b78c2", "#c07a1c", "#3f9b6c", "#b4566b", "#7a67b8", "#4f8593")
"""Told apart on light and on dark, and by most people who see colours otherwise."""
BEST, BAD, GREY = COLOURS[1], COLOURS[3], "#7e858b"
POINTS = 300
"""Points a curve has at most."""
SCALE = [[0.0, "#dfe7f1"], [0.5, "#5b8fd0"], [1.0, "#173d73"]]
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
"""Above the plot, where it covers no axis however many lines it takes."""


def scale(title: str, log: bool = False, **more: Any) -> dict[str, Any]:
    """Returns an axis with its title, which is text."""
    kind = {"type": "log"} if log else {}
    return {"title": {"text": page.text(title)}, "automargin": True, **kind, **more}


def thinned(values: Sequence[Any]) -> list[Any]:
    """Returns at most `POINTS` of some values, evenly, the last one among them."""
    if len(values) <= POINTS:
        return list(values)
    places = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))
    return [values[place] for place in places]


def curves(name: str, title: str, lines: Sequence[Mapping[str, Any]], what: str) -> str:
    """Curves by step.

    Args:
      name: the element's id.
      title: the caption.
      lines: each with ``label``, ``steps``, ``values``, ``colour``, and, where they are not the
        default, ``dash`` and whether it is ``listed`` in the legend.
      what: the title of the vertical axis.
    """
    data = [
        {
            "type": "scatter",
            "mode": "lines" if len(line["values"]) > 1 else "markers",
            "name": page.text(line["label"]),
            "x": thinned(line["steps"]),
            "y": thinned(line["values"]),
            "showlegend": line.get("listed", True),
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
        "showlegend": sum(line.get("listed", True) for line in lines) > 1,
        "legend": LEGEND,
        "hovermode": "x unified",
        "xaxis": scale("step"),
        "yaxis": scale(what),
    }
    return page.figure(name, title, f"{title}. {ends}.", data, layout, 400)


# --- runs -----------------------------------------------------------------------------------------


def confusion(name: str, matrix: Any, classes: Sequence[str]) -> str:
    """The confusion matrix: true classes down, predicted ones across."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    labels = [f"{page.text(one)} " for one in classes]  # a name that is a number stays a name
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
            "xgap": 1,
            "ygap": 1,
            "showscale": False,
            "hovertemplate": "true %{y}, predicted %{x}: %{text}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": scale("predicted", type="category", showgrid=False),
        "yaxis": scale("true", autorange="reversed", type="category", showgrid=False),
    }
    worst = confusions(counts, classes)[:1]
    most = (
        f"Most often {worst[0][0]} is taken for {worst[0][1]}: {worst[0][2]} of "
        f"{counts[classes.index(worst[0][0])].sum()}."
        if worst
        else "No example is confused."
    )
    words = (
        f"Confusion matrix of {len(classes)} classes: {np.trace(counts)} of {counts.sum()} "
        f"examples are on its diagonal. {most}"
    )
    return page.figure(name, most, words, data, layout, 460)


def confusions(matrix: Any, classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """Returns what is taken for what, and how often, the most frequent first.

    Example:
      >>> confusions([[5, 2], [1, 7]], ["cat", "dog"])
      [('cat', 'dog', 2), ('dog', 'cat', 1)]
    """
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")
    pairs = [divmod(int(place), len(classes)) for place in order[: np.count_nonzero(wrong)]]
    return [(classes[true], classes[guess], int(wrong[true, guess])) for true, guess in pairs]


def lines(
    name: str,
    caption: str,
    found: Sequence[tuple[str, Any, Any]],
    axes: tuple[str, str],
    diagonal: bool = False,
    markers: bool = False,
) -> str:
    """Several lines in a unit square, such as ROC curves, each with its label."""
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers" if markers else "lines",
            "name": page.text(label),
            "x": thinned(list(x)),
            "y": thinned(list(y)),
            "line": {
                "color": COLOURS[index % len(COLOURS)],
                "dash": "solid" if index < len(COLOURS) else "dash",
                "width": 2,
            },
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
        "showlegend": len(found) > 1,
        "legend": {**LEGEND, "font": {"size": 11}},
        "xaxis": scale(axes[0], range=[-0.02, 1.02]),
        "yaxis": scale(axes[1], range=[-0.02, 1.02]),
    }
    words = f"{caption}. Lines: {'; '.join(label for label, *_ in found)}."
    return page.figure(name, caption, words, data, layout, 420)


def scatter(name: str, caption: str, x: Any, y: Any, axes: tuple[str, str], diagonal: bool) -> str:
    """Points, with the line that is meant: the diagonal, or zero."""
    points: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": thinned(list(x)),
        "y": thinned(list(y)),
        "marker": {"color": COLOURS[0], "size": 6, "opacity": 0.7},
    }
    ends = [float(min(x)), float(max(x))]
    meant = {
        "type": "scatter", "mode": "lines", "x": ends, "y": ends if diagonal else [0.0, 0.0],
        "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip",
    }  # fmt: skip
    layout = {"xaxis": scale(axes[0]), "yaxis": scale(axes[1])}
    spread = float(np.std(np.asarray(y) - np.asarray(x) if diagonal else y))
    words = (
        f"{caption}: {len(x)} examples; they lie around the line with a standard deviation of "
        f"{page.number(spread)}."
    )
    return page.figure(name, caption, words, [meant, points], layout, 380)
