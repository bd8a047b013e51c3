"""The Pareto front: the first objective against another."""

from __future__ import annotations

from collections.abc import Container, Sequence

from jdlopt.report.figures import BEST, GREY, scale, trace
from jdlopt.report.hyperparameters import few, finished
from jdlopt.report.page import Figure, number
from jdlopt.study.records import Record


def front(
    name: str,
    trials: Sequence[Record],
    on_front: Container[int],
    objectives: Sequence[Record],
    other: int = 1,
) -> Figure:
    """Returns the first objective against another, the Pareto front marked.

    Args:
      name: the element's id.
      trials: of the study.
      on_front: the numbers of those that none is better than in all objectives.
      objectives: name and direction of each.
      other: which objective lies across.
    """
    done = finished(trials)
    best = sorted((t for t in done if t["number"] in on_front), key=lambda t: t["values"][other])
    rest = few(
        [t for t in done if t["number"] not in on_front], objectives[0]["direction"] == "maximize"
    )
    across = [t["values"][other] for t in done]
    log = bool(across) and min(across) > 0 and max(across) > 20 * min(across)
    # a trial is as good as all that it beats: the step's corner lies on the worse side
    shape = "hv" if objectives[other]["direction"] == "minimize" else "vh"
    mode = "lines+markers" if len(objectives) == 2 else "markers"
    data = [
        trace(
            kind,
            [t["values"][other] for t in some],
            [t["values"][0] for t in some],
            text=[_all(t, objectives) for t in some],
            hoverinfo="text",
            marker={"color": colour, "size": size},
            line={"color": colour, "shape": shape},
        )
        for some, kind, colour, size in ((rest, "markers", GREY, 7), (best, mode, BEST, 10))
    ]
    layout = {
        "xaxis": scale(objectives[other]["name"], log),
        "yaxis": scale(objectives[0]["name"]),
    }
    caption = f"{len(best)} of {len(done)} trials are on the Pareto front."
    said = "; ".join(_all(t, objectives) for t in best[:12])
    return Figure(name, caption, f"{caption} {said}.", data, layout, 400)


def _all(trial: Record, objectives: Sequence[Record]) -> str:
    values = (f"{one['name']} {number(value)}" for one, value in zip(objectives, trial["values"]))
    return f"trial {trial['number']}: {', '.join(values)}"
