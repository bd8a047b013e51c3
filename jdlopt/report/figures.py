"""The figures that pages share, as Plotly's data and layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdlopt.report.page import Figure, Spec, number

COLOURS = ("#3b78c2", "#c07a1c", "#3f9b6c", "#b4566b", "#7a67b8", "#4f8593")
"""Distinct on light and on dark, and to most people with another sense of colour."""
BEST, BAD, GREY = COLOURS[1], COLOURS[3], "#7e858b"
POINTS = 300
"""Points a curve has at most."""
LABELLED = 20
"""Cells of a matrix's row above which their numbers are left out."""
SCALE = [[0.0, "#dfe7f1"], [0.5, "#5b8fd0"], [1.0, "#173d73"]]
MATRIX_CLASSES = 40
"""A confusion matrix of more classes is not drawn."""
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
"""Above the plot, where it covers no axis however many lines it takes."""


class Line(NamedTuple):
    """A curve.

    Attributes:
      label: in the legend.
      x, y: its points.
      colour: a place in `COLOURS`, counted on from the start again.
      dash: Plotly's.
      listed: whether it is in the legend.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dash: str = "solid"
    listed: bool = True


def scale(title: str, log: bool = False, **more: object) -> Spec:
    """Returns an axis with its title, if it has one."""
    found = {"title": {"text": title}} if title else {}
    kind = {"type": "log"} if log else {}
    return {"automargin": True, **found, **kind, **more}


def trace(mode: str, x: object, y: object, **more: object) -> Spec:
    """Returns a scatter trace."""
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **more}


def thinned(values: ArrayLike) -> list[float]:
    """Returns at most `POINTS` of some values, evenly, the last one among them."""
    found = np.asarray(values)
    if len(found) > POINTS:
        found = found[np.unique(np.linspace(0, len(found) - 1, POINTS).round().astype(int))]
    return found.tolist()


def curves(name: str, caption: str, lines: Sequence[Line], what: str, across: str = "step", *,
           log: bool = False, height: int = 400) -> Figure:  # fmt: skip
    """Returns curves, by step if nothing else is said.

    Args:
      name: the element's id.
      caption: what stands under it.
      lines: the curves.
      what, across: titles of the vertical and the horizontal axis.
      log: whether the horizontal axis is logarithmic.
      height: in pixels.
    """
    data = [
        trace(
            "lines" if len(line.y) > 1 else "markers",
            thinned(line.x),
            thinned(line.y),
            name=line.label,
            showlegend=line.listed,
            line={"color": COLOURS[line.colour % len(COLOURS)], "dash": line.dash, "width": 2},
        )
        for line in lines
    ]
    ends = "; ".join(f"{line.label} ends at {number(float(line.y[-1]))}" for line in lines)
    layout = {
        "showlegend": sum(line.listed for line in lines) > 1,
        "legend": LEGEND,
        "hovermode": "x unified",
        "xaxis": scale(across, log),
        "yaxis": scale(what),
    }
    return Figure(name, caption, f"{caption}. {ends}.", data, layout, height)


def by_split(
    name: str,
    what: str,
    found: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    best: int | None = None,
    marks: Mapping[str, float] | None = None,
) -> Figure | None:
    """Returns the curves of a metric on both splits, or None where there are none.

    Args:
      name: the element's id.
      what: the metric.
      found: steps and values of a split.
      best: the step of the best checkpoint, which is marked.
      marks: other steps that are marked, by what they are.
    """
    lines = [
        Line(split, *found[split], colour)
        for colour, split in enumerate(("train", "validation"))
        if split in found and len(found[split][1])
    ]
    if not lines:
        return None
    said = [f"{what} by step"]
    shapes: list[Spec] = []
    if best is not None:
        said.append(f"dotted: the best, {best:,}")
        shapes.append(_upright(best, COLOURS[2], "dot"))
    if marks:
        said.append("dashed: " + ", ".join(f"{word}, {at:,.0f}" for word, at in marks.items()))
        shapes += [_upright(at, BAD, "dash") for at in marks.values()]
    made = curves(name, "; ".join(said), lines, what, height=340)
    return replace(made, layout={**made.layout, "shapes": shapes}) if shapes else made


def _upright(at: float, colour: str, dash: str) -> Spec:
    """Returns a line over the whole height of a plot."""
    line = {"color": colour, "width": 1.5, "dash": dash}
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def bars(
    name: str,
    caption: str,
    rows: Sequence[tuple[str, float | None]],
    what: str,
    *,
    log: bool = False,
    upright: bool = False,
    texts: Sequence[str] = (),
) -> Figure | None:
    """Returns a bar a row, or None where no row has a value, or all are 0.

    Args:
      name: the element's id.
      caption: what stands under it.
      rows: label and value, from top to bottom; those without a value are left out.
      what: the title of the axis of values.
      log: whether that axis is logarithmic; then values of 0 are left out.
      upright: whether the bars stand.
      texts: what is written at the ends of bars.
    """
    kept = [(label, value) for label, value in rows if value is not None and (value > 0 or not log)]
    if not any(value for _, value in kept):
        return None
    # a place for each bar, named by its label: two rows may have one short name
    places, values = list(range(len(kept))), [value for _, value in kept]
    ticks: Spec = {"tickvals": places, "ticktext": [f"{label} " for label, _ in kept]}
    bar: Spec = {"type": "bar", "marker": {"color": COLOURS[0]}}
    if texts:
        bar |= {"text": texts, "textposition": "outside", "cliponaxis": False}
    if upright:
        bar |= {"x": places, "y": values}
        layout = {"xaxis": scale("", **ticks), "yaxis": scale(what, log)}
    else:
        bar |= {"x": values, "y": places, "orientation": "h"}
        layout = {
            "xaxis": scale(what, log),
            "yaxis": scale("", autorange="reversed", showgrid=False, **ticks),
        }
    shown = "; ".join(f"{label}: {number(float(value))}" for label, value in kept[:12])
    height = 320 if upright else 100 + 26 * len(kept)
    return Figure(name, caption, f"{caption}. {shown}.", [bar], layout, height)


def matrix(name: str, caption: str, alternative: str, cells: ArrayLike, labels: Sequence[str],
           axes: tuple[str, str], *, shares: bool = False) -> Figure:  # fmt: skip
    """Returns counts as a coloured square.

    Args:
      name: the element's id.
      caption: what stands under it.
      alternative: what it shows.
      cells: counts, [down, across].
      labels: of both sides.
      axes: titles across and down; no text from outside.
      shares: whether a cell's colour is its share of the row.
    """
    counts = np.asarray(cells)
    places: Spec = {"tickvals": list(range(len(labels))), "ticktext": [f"{one} " for one in labels]}
    data: Spec = {
        "type": "heatmap",
        "z": counts / np.maximum(1, counts.sum(axis=1, keepdims=True)) if shares else counts,
        "text": counts,
        "texttemplate": "%{text}" if len(labels) <= LABELLED else "",
        "customdata": [[[down, across] for across in labels] for down in labels],
        "hovertemplate": f"{axes[1]} %{{customdata[0]}}, {axes[0]} %{{customdata[1]}}: "
        "%{text}<extra></extra>",
        "colorscale": SCALE,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        **({"zmin": 0, "zmax": 1} if shares else {}),
    }
    layout = {
        "xaxis": scale(axes[0], showgrid=False, zeroline=False, **places),
        "yaxis": scale(axes[1], showgrid=False, zeroline=False, autorange="reversed", **places),
    }
    height = min(720, 170 + 34 * max(5, len(labels)))
    return Figure(name, caption, alternative, [data], layout, height)


def confusion(name: str, counts: ArrayLike, classes: Sequence[str]) -> Figure:
    """Returns the confusion matrix: true classes down, predicted ones across."""
    found = np.asarray(counts)
    wrong = found - np.diag(np.diag(found))
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    most = "No example is confused."
    if wrong.any():
        most = (
            f"Most frequent confusion: {classes[true]} predicted as {classes[predicted]}, "
            f"{found[true, predicted]} of {found[true].sum()}."
        )
    alternative = (
        f"Confusion matrix of {len(classes)} classes: {np.trace(found)} of {found.sum()} "
        f"examples are on its diagonal. {most}"
    )
    axes = ("predicted", "true")
    return matrix(name, most, alternative, found, classes, axes, shares=True)


def confusions(
    targets: np.ndarray, guesses: np.ndarray, classes: Sequence[str]
) -> list[tuple[str, str, int]]:
    """Returns true class, predicted class and how often, the most frequent confusion first.

    Pairs are counted, so that the number of classes costs nothing.

    Args:
      targets, guesses: the number of each example's class, true and predicted.
      classes: their names.

    Example:
      >>> confusions(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 0]), ["cat", "dog"])
      [('cat', 'dog', 2), ('dog', 'cat', 1)]
    """
    wrong = targets != guesses
    cells = targets[wrong].astype(np.int64) * len(classes) + guesses[wrong]
    pairs, counts = np.unique(cells, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (classes[true], classes[guess], count)
        for (true, guess), count in (
            (divmod(int(pairs[place]), len(classes)), int(counts[place])) for place in order
        )
    ]


def unit_square(
    name: str,
    caption: str,
    found: Sequence[tuple[str, ArrayLike, ArrayLike]],
    axes: tuple[str, str],
    *,
    diagonal: bool = False,
    markers: bool = False,
) -> Figure:
    """Returns several lines in a unit square, such as ROC curves.

    Args:
      name: the element's id.
      caption: what stands under it.
      found: label, x and y of each.
      axes: titles across and up.
      diagonal: whether the diagonal is drawn.
      markers: whether the points are drawn.
    """
    data = [
        trace(
            "lines+markers" if markers else "lines",
            thinned(x),
            thinned(y),
            name=label,
            line={
                "color": COLOURS[index % len(COLOURS)],
                "dash": "solid" if index < len(COLOURS) else "dash",
                "width": 2,
            },
        )
        for index, (label, x, y) in enumerate(found)
    ]
    if diagonal:
        dotted = {"color": GREY, "dash": "dot", "width": 1}
        data.append(trace("lines", [0, 1], [0, 1], line=dotted, showlegend=False, hoverinfo="skip"))
    layout = {
        "showlegend": len(found) > 1,
        "legend": {**LEGEND, "font": {"size": 11}},
        "xaxis": scale(axes[0], range=[-0.02, 1.02]),
        "yaxis": scale(axes[1], range=[-0.02, 1.02]),
    }
    alternative = f"{caption}. Lines: {'; '.join(label for label, *_ in found)}."
    height = 360 + 20 * math.ceil(len(found) / 2)
    return Figure(name, caption, alternative, data, layout, height)


def scatter(
    name: str, caption: str, x: ArrayLike, y: ArrayLike, axes: tuple[str, str], diagonal: bool
) -> Figure:
    """Returns points, with the line on which they ought to lie: the diagonal, or zero."""
    across, up = np.asarray(x, float), np.asarray(y, float)
    marker = {"color": COLOURS[0], "size": 6, "opacity": 0.7}
    points = trace("markers", thinned(across), thinned(up), marker=marker)
    ends = [float(across.min()), float(across.max())]
    dotted = {"color": GREY, "dash": "dot"}
    ideal = trace("lines", ends, ends if diagonal else [0, 0], line=dotted, hoverinfo="skip")
    layout = {"xaxis": scale(axes[0]), "yaxis": scale(axes[1])}
    spread = number(float(np.std(up - across if diagonal else up)))
    alternative = (
        f"{caption}: {len(across)} examples; standard deviation around the line: {spread}."
    )
    return Figure(name, caption, alternative, [ideal, points], layout, 380)
