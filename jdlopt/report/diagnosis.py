"""The page of a diagnosis: each finding with its numbers, a picture, and what to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt.errors import WorkdirError
from jdlopt.report import figures, page
from jdlopt.train import disk

PAGE = "diagnosis.html"
MATRIX_CLASSES = 40
"""A confusion matrix of more classes is not drawn."""
CURVES = ("loss", "accuracy", "grad_norm")


def write_page(folder: Path, diagnosis: Mapping[str, Any]) -> Path:
    """Writes ``diagnosis.html`` beside its final name and renames it; returns its path.

    Args:
      folder: the run's directory.
      diagnosis: what `jdlopt.evidence.diagnose.diagnose` returned.

    Raises:
      WorkdirError: it can't be written.
    """
    path = folder / PAGE
    try:
        disk.write_aside(path, whole_page(folder.resolve().name, diagnosis))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {error.strerror}.") from error
    return path


def whole_page(name: str, diagnosis: Mapping[str, Any]) -> str:
    """Returns the page as HTML.

    Args:
      name: the run's.
      diagnosis: its findings, what could not be looked at, and its record.
    """
    record, findings = diagnosis["record"], diagnosis["findings"]
    config = record["config"]
    content = [_headline(record, findings), _readings(findings)]
    drawn = [_section(place, one, record) for place, one in enumerate(findings)]
    content += [section for section in drawn if section]
    content += _rest(record)
    if diagnosis["unseen"]:
        reasons = "".join(f"<p>{page.text(reason)}</p>" for reason in diagnosis["unseen"])
        content.append(page.section("unseen", "What could not be looked at", reasons))
    lead = f"A run of {config['model']['name']} on {config['data']['source']}."
    footer = "The numbers behind all this are in diagnosis.json. The test split was not opened."
    return page.page(f"Diagnosis of {name}", lead, content, footer)


def _headline(record: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> str:
    run = record["run"]
    counts = [
        (level, str(sum(one["level"] == level for one in findings)))
        for level in ("serious", "warning", "note")
    ]
    best = run.get("best") or {}
    pairs = [*counts, ("status", page.text(run["status"])), ("steps", page.number(run["steps"]))]
    if best.get("value") is not None:
        pairs.append((f"best {best['metric']}", page.number(best["value"])))
    return page.facts(pairs)


def _readings(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return "<p>Nothing was found that holds it back.</p>"
    items = []
    for one in findings:
        tried = ", ".join(page.text(name) for name in one["techniques"])
        hint = page.text(one["suggestion"]) + (f" Techniques: {tried}." if tried else "")
        items.append(
            f'<li class="{page.text(one["level"])}"><span class="level">{page.text(one["level"])}: '
            f"{page.text(_words(one))}</span><br>{page.text(one['text'])}"
            f'<br><span class="hint">{hint}</span></li>'
        )
    listed = f'<ul class="readings">{"".join(items)}</ul>'
    return page.section("findings", "Findings", listed)


def _words(finding: Mapping[str, Any]) -> str:
    return str(finding["name"]).replace("_", " ")


def _section(place: int, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    draw = PICTURES.get(finding["name"])
    picture = draw(f"figure-{place}", finding, record) if draw else ""
    if not picture:
        return ""
    title = _words(finding)
    return page.section(
        f"finding-{place}",
        title[0].upper() + title[1:],
        f"<p>{page.text(finding['text'])}</p>",
        f'<div class="grid">{picture}</div>',
    )


# --- pictures -------------------------------------------------------------------------------------

Picture = Callable[[str, Mapping[str, Any], Mapping[str, Any]], str]
"""``(element's id, finding, record) → HTML``, empty where there is nothing to draw."""


def loss_curves(
    name: str, record: Mapping[str, Any], mark: float | None = None, what: str = "loss"
) -> str:
    """Returns the curves of a metric on both splits, a step marked."""
    found = []
    for colour, split in enumerate(("train", "validation")):
        curve = (record.get("curves") or {}).get(f"{split}/{what}")
        if curve and curve["values"]:
            found.append(
                {
                    "label": split,
                    "steps": curve["steps"],
                    "values": curve["values"],
                    "colour": colour,
                }
            )
    if not found:
        return ""
    if mark is not None:
        values = [value for line in found for value in line["values"]]
        found.append(
            {
                "label": f"step {mark:,.0f}",
                "steps": [mark, mark],
                "values": [min(values), max(values)],
                "colour": 3,
                "dash": "dot",
            }
        )
    return figures.curves(name, f"{what} by step", found, what)


def bars(
    name: str, caption: str, rows: Sequence[tuple[str, float | None]], what: str, log: bool = False
) -> str:
    """Returns one bar a row: of layers, classes, columns.

    Args:
      name: the element's id.
      caption: what stands under it.
      rows: label and value, from top to bottom; those without a value are left out.
      what: the title of the axis of values.
      log: whether that axis is logarithmic; then values of 0 are left out.
    """
    kept = [(label, value) for label, value in rows if value is not None and (value > 0 or not log)]
    if not kept:
        return ""
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [value for _, value in kept],
            "y": [f"{page.text(label)} " for label, _ in kept],
            "marker": {"color": figures.COLOURS[0]},
        }
    ]
    layout = {
        "xaxis": figures.scale(what, log),
        "yaxis": {"automargin": True, "autorange": "reversed", "type": "category"},
    }
    told = "; ".join(f"{label}: {page.number(float(value))}" for label, value in kept[:12])
    return page.figure(name, caption, f"{caption}. {told}.", data, layout, 120 + 26 * len(kept))


def rate_curve(name: str, record: Mapping[str, Any]) -> str:
    """Returns the curve of the learning-rate range test, with the config's rate and others."""
    found = record.get("rates")
    if not found:
        return ""
    pairs = [(r, v) for r, v in zip(found["rates"], found["losses"]) if v is not None]
    top = 2 * (found["start"] or pairs[0][1])
    pairs = [(rate, loss) for rate, loss in pairs if loss <= top]
    if not pairs:
        return ""
    low, high = min(loss for _, loss in pairs), max(loss for _, loss in pairs)
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "loss",
            "x": [rate for rate, _ in pairs],
            "y": [loss for _, loss in pairs],
            "line": {"color": figures.COLOURS[0], "width": 2},
        }
    ]
    marks = [
        ("the config's", found["rate"], figures.BAD),
        ("suggested", found["suggested"], figures.BEST),
        ("lowest loss", found["best_rate"], figures.GREY),
    ]
    told = []
    for label, rate, colour in marks:
        if rate is None:
            continue
        told.append(f"{label} {rate:.2g}")
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{label}: {rate:.2g}",
                "x": [rate, rate],
                "y": [low, high],
                "line": {"color": colour, "dash": "dot", "width": 2},
            }
        )
    layout = {
        "showlegend": True,
        "legend": figures.LEGEND,
        "xaxis": figures.scale("learning rate", log=True),
        "yaxis": figures.scale("training loss"),
    }
    caption = "Loss while the learning rate grows from step to step"
    return page.figure(name, caption, f"{caption}: {', '.join(told)}.", data, layout, 380)


def _curve_with(key: str) -> Picture:
    def draw(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
        return loss_curves(name, record, finding["numbers"].get(key))

    return draw


def _rates(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    return rate_curve(name, record) + loss_curves(f"{name}-curve", record)


def _gradients(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    made = []
    for place in ("start", "checkpoint"):
        found = (record.get("gradients") or {}).get(place)
        if found:
            caption = f"Gradient by the size of the weights, {_place(place)}"
            rows = [(row["name"], row["relative"]) for row in found["layers"]]
            made.append(bars(f"{name}-{place}", caption, rows, "gradient / weights", log=True))
    return "".join(made)


def _gains(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    rows = ((record.get("gradients") or {}).get("start") or {}).get("layers") or []
    acts = (record.get("layers") or {}).get("start") or []
    return bars(
        f"{name}-gain", "Gain of each layer's weights at the start",
        [(row["name"], row["gain"]) for row in rows], "gain", log=True,
    ) + bars(
        f"{name}-values", "Size of what goes into each activation at the start",
        [(row["layer"], row["rms_before"]) for row in acts], "root mean square", log=True,
    )  # fmt: skip


def _units(what: str) -> Picture:
    def draw(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
        made = []
        for place in ("start", "checkpoint"):
            rows = [
                (row["layer"], row[what])
                for row in (record.get("layers") or {}).get(place) or []
                if row[what] is not None
            ]
            caption = f"Share of {what} units or values after each layer, {_place(place)}"
            made.append(bars(f"{name}-{place}", caption, rows, "share"))
        return "".join(made)

    return draw


def _place(place: str) -> str:
    return "before the first step" if place == "start" else "at the checkpoint"


def _reliability(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    found = [
        (split, [b["confidence"] for b in bins], [b["accuracy"] for b in bins])
        for split in ("train", "validation")
        if (bins := (_said(record, split).get("calibration") or {}).get("bins"))
    ]
    caption = "Confidence against the share that is right, in fifteenths"
    axes = ("confidence", "share right")
    return figures.lines(name, caption, found, axes, diagonal=True, markers=True) if found else ""


def _said(record: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    return (record.get("predictions") or {}).get(split) or {}


def _confusion(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    names = [str(one) for one in record["run"].get("classes") or []]
    matrix = _said(record, "validation").get("confusion")
    if not matrix or len(names) > MATRIX_CLASSES:
        return ""
    counts = record["run"]["counts"]
    return figures.confusion(name, matrix, names) + bars(
        f"{name}-counts", "Training examples of each class", list(zip(names, counts)), "examples"
    )


def _columns(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    found = (record.get("splits") or {}).get("columns") or []
    rows = [(row["name"], row["statistic"]) for row in found]
    caption = "Columns that differ between training and validation (Kolmogorov-Smirnov)"
    return bars(name, caption, rows, "largest distance of the distributions")


def _leaks(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    rows = list(finding["numbers"]["columns"].items())[:30]
    return bars(name, "How well each column alone tells the target", rows, "score out of fold")


def _pruned(name: str, finding: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    rows = record.get("pruned") or []
    labelled = [(f"{row['share']:.0%} set to 0", row["loss"]) for row in rows]
    return bars(name, "Validation loss without the smallest weights", labelled, "loss")


PICTURES: dict[str, Picture] = {
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


def _rest(record: Mapping[str, Any]) -> list[str]:
    """The run's curves, its rates and its layers, whatever was found."""
    curves = [loss_curves(f"curve-{what}", record, what=what) for what in CURVES]
    made = [page.section("curves", "Curves", f'<div class="grid">{"".join(curves)}</div>')]
    if record.get("rates"):
        made.append(
            page.section("rates", "Learning-rate range test", rate_curve("rate-curve", record))
        )
    layers = (record.get("layers") or {}).get("checkpoint") or (
        (record.get("layers") or {}).get("start") or []
    )
    if layers:
        header = ["after", "activation", "units", "dead", "saturated", "size", "effective rank"]
        rows = [
            [
                page.text(row["layer"]),
                page.text(row["kind"]),
                page.number(row["units"]),
                *(
                    "–" if row[what] is None else f"{row[what]:.1%}"
                    for what in ("dead", "saturated")
                ),
                page.number(row["rms_after"]),
                page.number(row["rank"]),
            ]
            for row in layers
        ]
        shown = page.table("What lies in a loop is not looked at", header, rows)
        made.append(page.section("layers", "Activations", shown))
    return made
