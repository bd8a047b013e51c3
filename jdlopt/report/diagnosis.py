"""The page of a diagnosis: each finding with its numbers, figures, and what to try."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from jdlopt import writing
from jdlopt.errors import WorkdirError
from jdlopt.report.figures import (
    BAD,
    BEST,
    COLOURS,
    GREY,
    LEGEND,
    Line,
    bars,
    by_split,
    confusion,
    curves,
    scale,
    trace,
    unit_square,
)  # fmt: skip
from jdlopt.report.page import Figure, Table, render
from jdlopt.report.records import Record

PAGE = "diagnosis.html"
MATRIX_CLASSES = 40
"""A confusion matrix of more classes is not drawn."""
CURVES = ("loss", "accuracy", "grad_norm")
STAGES = {"start": "before the first step", "checkpoint": "at the checkpoint"}
SPLITS = ("train", "validation")


def write_page(folder: Path, diagnosis: Record) -> Path:
    """Writes ``diagnosis.html`` beside its final name and renames it; returns its path.

    Args:
      folder: the run's directory.
      diagnosis: what `jdlopt.evidence.diagnose.diagnose` returned.

    Raises:
      WorkdirError: it can't be written.
    """
    path = folder / PAGE
    try:
        writing.write_aside(path, make_page(folder.resolve().name, diagnosis))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {error.strerror}.") from error
    return path


def make_page(name: str, diagnosis: Record) -> str:
    """Returns the page as HTML.

    Args:
      name: the run's.
      diagnosis: its findings, what could not be examined, and its record.
    """
    record, findings = diagnosis["record"], diagnosis["findings"]
    config, run = record["config"], record["run"]
    best = run.get("best") or {}
    facts = [
        (level, sum(one["level"] == level for one in findings))
        for level in ("serious", "warning", "note")
    ]
    facts += [("status", run["status"]), ("steps", run["steps"])]
    if best.get("value") is not None:
        facts.append((f"best {best['metric']}", best["value"]))
    return render(
        "diagnosis",
        title=f"Diagnosis of {name}",
        lead=f"A run of {config['model']['name']} on {config['data']['source']}.",
        footer="The numbers are in diagnosis.json. The test split was not opened.",
        facts=facts,
        findings=[_finding(place, one, record) for place, one in enumerate(findings)],
        curves=_known(by_split(f"curve-{what}", what, _curves(record, what)) for what in CURVES),
        rates=rate_curve("rate-curve", record),
        layers=_layers(record),
        unseen=diagnosis["unseen"],
    )


def _finding(place: int, finding: Record, record: Record) -> Mapping[str, object]:
    draw = FIGURES.get(finding["name"])
    tried = f" Techniques: {', '.join(finding['techniques'])}." if finding["techniques"] else ""
    return {
        "place": place,
        "level": finding["level"],
        "title": str(finding["name"]).replace("_", " "),
        "text": finding["text"],
        "hint": f"{finding['suggestion']}{tried}".strip(),
        "figures": _known(draw(f"figure-{place}", finding, record)) if draw else [],
    }


def _known(figures: Iterable[Figure | None]) -> list[Figure]:
    return [one for one in figures if one is not None]


def _curves(record: Record, what: str) -> dict[str, tuple[list[float], list[float]]]:
    """Returns steps and values of a metric by split."""
    found = record.get("curves") or {}
    return {
        split: (curve["steps"], curve["values"])
        for split in SPLITS
        if (curve := found.get(f"{split}/{what}"))
    }


def _layers(record: Record) -> Table | None:
    found = record.get("layers") or {}
    columns = {"layer": "after", "kind": "activation", "units": "units", "dead": "dead",
               "saturated": "saturated", "rms_after": "size", "rank": "effective rank"}  # fmt: skip
    rows = [
        [
            f"{row[name]:.1%}" if name in ("dead", "saturated") and row[name] is not None
            else row[name]
            for name in columns
        ]
        for row in found.get("checkpoint") or found.get("start") or ()
    ]  # fmt: skip
    caption = "Layers inside a scan or loop are not examined"
    return Table(caption, list(columns.values()), rows) if rows else None


# --- figures --------------------------------------------------------------------------------------

Draw = Callable[[str, Record, Record], "Iterable[Figure | None]"]
"""``(element's id, finding, record) → figures``, None where there is nothing to draw."""


def loss_curves(name: str, record: Record, mark: float | None = None) -> Figure | None:
    """Returns the curves of the loss on both splits, with a step marked."""
    found = _curves(record, "loss")
    lines = [Line(split, *found[split], place) for place, split in enumerate(found)]
    values = [value for line in lines for value in line.y]
    if not values:
        return None
    if mark is not None:
        ends = [min(values), max(values)]
        lines.append(Line(f"step {mark:,.0f}", [mark, mark], ends, 3, "dot"))
    return curves(name, "loss by step", lines, "loss")


def rate_curve(name: str, record: Record) -> Figure | None:
    """Returns the curve of the learning-rate range test, with the config's rate and others."""
    found = record.get("rates")
    if not found:
        return None
    pairs = [(r, v) for r, v in zip(found["rates"], found["losses"]) if v is not None]
    if not pairs:
        return None
    top = 2 * (found["start"] or pairs[0][1])
    pairs = [(rate, loss) for rate, loss in pairs if loss <= top]
    if not pairs:
        return None
    losses = [loss for _, loss in pairs]
    ends = [min(losses), max(losses)]
    marks = [
        (f"{label}: {found[key]:.2g}", found[key], colour)
        for label, key, colour in (
            ("the config's", "rate", BAD),
            ("suggested", "suggested", BEST),
            ("lowest loss", "best_rate", GREY),
        )
        if found[key] is not None
    ]
    data = [
        trace("lines", [rate for rate, _ in pairs], losses, name="loss",
              line={"color": COLOURS[0], "width": 2}),
        *(
            trace("lines", [rate, rate], ends, name=label,
                  line={"color": colour, "dash": "dot", "width": 2})
            for label, rate, colour in marks
        ),
    ]  # fmt: skip
    layout = {
        "showlegend": True,
        "legend": LEGEND,
        "xaxis": scale("learning rate", log=True, dtick=1, exponentformat="power"),
        "yaxis": scale("training loss"),
    }
    caption = "Loss while the learning rate grows from step to step"
    said = ", ".join(label for label, *_ in marks)
    return Figure(name, caption, f"{caption}: {said}.", data, layout, 380)


def _curve_with(key: str) -> Draw:
    def draw(name: str, finding: Record, record: Record) -> list[Figure | None]:
        return [loss_curves(name, record, finding["numbers"].get(key))]

    return draw


def _rates(name: str, finding: Record, record: Record) -> list[Figure | None]:
    return [rate_curve(name, record), loss_curves(f"{name}-curve", record)]


def _gradients(name: str, finding: Record, record: Record) -> Iterable[Figure | None]:
    for stage, when in STAGES.items():
        layers = ((record.get("gradients") or {}).get(stage) or {}).get("layers") or []
        rows = [(row["name"], row["relative"]) for row in layers]
        caption = f"Gradient relative to the weights, {when}"
        yield bars(f"{name}-{stage}", caption, rows, "gradient / weights", log=True)


def _gains(name: str, finding: Record, record: Record) -> list[Figure | None]:
    layers = ((record.get("gradients") or {}).get("start") or {}).get("layers") or []
    inputs = (record.get("layers") or {}).get("start") or []
    return [
        bars(
            f"{name}-gain", "Gain of each layer's weights at the start",
            [(row["name"], row["gain"]) for row in layers], "gain", log=True,
        ),
        bars(
            f"{name}-values", "Size of each activation's input at the start",
            [(row["layer"], row["rms_before"]) for row in inputs], "root mean square", log=True,
        ),
    ]  # fmt: skip


def _units(what: str) -> Draw:
    def draw(name: str, finding: Record, record: Record) -> Iterable[Figure | None]:
        for stage, when in STAGES.items():
            layers = (record.get("layers") or {}).get(stage) or []
            rows = [(row["layer"], row[what]) for row in layers]
            caption = f"Share of {what} units or values after each layer, {when}"
            yield bars(f"{name}-{stage}", caption, rows, "share")

    return draw


def _predictions(record: Record, split: str) -> Record:
    return (record.get("predictions") or {}).get(split) or {}


def _reliability(name: str, finding: Record, record: Record) -> list[Figure | None]:
    found = [
        (split, [b["confidence"] for b in bins], [b["accuracy"] for b in bins])
        for split in SPLITS
        if (bins := (_predictions(record, split).get("calibration") or {}).get("bins"))
    ]
    caption = "Calibration: confidence against accuracy, in fifteenths"
    axes = ("confidence", "accuracy")
    return [unit_square(name, caption, found, axes, diagonal=True, markers=True)] if found else []


def _confusion(name: str, finding: Record, record: Record) -> list[Figure | None]:
    names = [str(one) for one in record["run"].get("classes") or []]
    counts = _predictions(record, "validation").get("confusion")
    if not counts or len(names) > MATRIX_CLASSES:
        return []
    rows = list(zip(names, record["run"]["counts"]))
    return [
        confusion(name, counts, names),
        bars(f"{name}-counts", "Training examples of each class", rows, "examples"),
    ]


def _columns(name: str, finding: Record, record: Record) -> list[Figure | None]:
    found = (record.get("splits") or {}).get("columns") or []
    rows = [(row["name"], row["statistic"]) for row in found]
    caption = "Columns that differ between training and validation (Kolmogorov-Smirnov)"
    return [bars(name, caption, rows, "largest distance of the distributions")]


def _leaks(name: str, finding: Record, record: Record) -> list[Figure | None]:
    rows = list(finding["numbers"]["columns"].items())[:30]
    return [bars(name, "How well each column alone predicts the target", rows, "score out of fold")]


def _pruned(name: str, finding: Record, record: Record) -> list[Figure | None]:
    rows = [(f"{row['share']:.0%} set to 0", row["loss"]) for row in record.get("pruned") or []]
    return [bars(name, "Validation loss without the smallest weights", rows, "loss")]


FIGURES: dict[str, Draw] = {
    "target_leak": _leaks,
    "shift": _columns,
    "class_imbalance": _confusion,
    "weak_classes": _confusion,
    "layer_scale": _gains,
    "input_scale": _gains,
    "exploding_gradients": _gradients,
    "vanishing_gradients": _gradients,
    "dead_units": _units("dead"),
    "dying_units": _units("dead"),
    "saturated_units": _units("saturated"),
    "saturating_units": _units("saturated"),
    "learning_rate_too_high": _rates,
    "learning_rate_too_low": _rates,
    "divergence": _curve_with("step"),
    "loss_spikes": _curve_with("step"),
    "overfitting": _curve_with("since"),
    "underfitting": _curve_with("best_step"),
    "still_improving": _curve_with("best_step"),
    "saturated_early": _curve_with("step"),
    "miscalibration": _reliability,
    "unused_capacity": _pruned,
}
"""What is drawn beside a finding."""
