"""The page of a diagnosis: each finding with its numbers, figures, and what to try."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from jdlopt.config.parts import code_in
from jdlopt.errors import UserError
from jdlopt.report import commands
from jdlopt.report.cards import Cards, of_training
from jdlopt.report.figures import (
    BAD,
    BEST,
    COLOURS,
    GREY,
    LEGEND,
    MATRIX_CLASSES,
    bars,
    by_split,
    confusion,
    scale,
    trace,
    unit_square,
)  # fmt: skip
from jdlopt.report.page import Figure, Table, render
from jdlopt.report.saving import save
from jdlopt.study.records import Record

PAGE = "diagnosis.html"
CURVES = ("loss", "accuracy", "grad_norm")
STAGES = {"start": "before the first step", "checkpoint": "at the checkpoint"}
SPLITS = ("train", "validation")


def write_page(folder: Path, diagnosis: Record, allow_code: bool = False) -> Path:
    """Writes ``diagnosis.html`` and returns its path.

    Args:
      folder: the run's directory.
      diagnosis: what `jdlopt.evidence.diagnose.diagnose` returned.
      allow_code: import the parts that the run's config names by dotted path, to show examples.

    Raises:
      WorkdirError: it can't be written.
    """
    return save(folder, make_page(folder, diagnosis, _doubtful(diagnosis, allow_code)), PAGE)


def make_page(folder: Path, diagnosis: Record, doubtful: Cards | None = None) -> str:
    """Returns the page as HTML.

    Args:
      folder: the run's directory.
      diagnosis: its findings, what could not be examined, and its record.
      doubtful: the examples whose labels look wrong.
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
    curves, rates = _curves(record, findings), rate_curve("rate-curve", record)
    sections = {"curves": bool(curves), "rates": rates is not None}
    made = [
        _finding(place, one, record, doubtful if one["name"] == "label_errors" else None)
        for place, one in enumerate(findings)
    ]
    return render(
        "diagnosis",
        title=f"Diagnosis of {folder.resolve().name}",
        lead=f"A run of {config['model']['name']} on {config['data']['source']}.",
        footer="The numbers are in diagnosis.json. The test split was not opened.",
        facts=facts,
        findings=[
            {**one, "where": one["where"] if sections.get(str(one["where"]), True) else ""}
            for one in made
        ],
        commands=commands.of_diagnosis(folder, config, findings),
        where=commands.where(config),
        curves=curves,
        rates=rates,
        layers=_layers(record),
        unseen=diagnosis["unseen"],
    )


def _finding(
    place: int, finding: Record, record: Record, examples: Cards | None
) -> Mapping[str, object]:
    draw = FIGURES.get(finding["name"])
    figures = [one for one in draw(f"figure-{place}", finding, record) if one] if draw else []
    tried = f" Techniques: {', '.join(finding['techniques'])}." if finding["techniques"] else ""
    where = f"finding-{place}" if figures or examples else SECTIONS.get(finding["name"], "")
    return {
        "place": place,
        "level": finding["level"],
        "title": str(finding["name"]).replace("_", " "),
        "text": finding["text"],
        "hint": f"{finding['suggestion']}{tried}".strip(),
        "where": where,
        "figures": figures,
        "examples": examples,
    }


def _doubtful(diagnosis: Record, allow_code: bool) -> Cards | None:
    """Returns the first examples whose labels look wrong; None where they can't be shown."""
    noise = (diagnosis["record"].get("data") or {}).get("label_noise") or {}
    shown = noise.get("examples")
    if not shown or all(one["name"] != "label_errors" for one in diagnosis["findings"]):
        return None
    config = diagnosis["record"]["config"]
    if code_in(config) and not allow_code:
        return None
    from jdlopt.data.source import open_dataset
    from jdlopt.train.schema import resolve_data

    try:
        dataset = open_dataset(resolve_data(config), allow_missing=True)
        places, pairs = ([one[key] for one in shown] for key in ("place", "pair"))
        return of_training(dataset, places, "given → likely", pairs)
    except UserError:
        return None


def _curves(record: Record, findings: Sequence[Record]) -> list[Figure]:
    """Returns each curve once; the loss with the steps that findings are about."""
    found = record.get("curves") or {}
    best = (record["run"].get("best") or {}).get("step")
    marks = {
        str(one["name"]).replace("_", " "): one["numbers"].get(STEPS[one["name"]])
        for one in findings
        if one["name"] in STEPS
    }
    known = {name: at for name, at in marks.items() if isinstance(at, int | float)}
    made = [
        by_split(
            f"curve-{what}",
            what,
            {
                split: (curve["steps"], curve["values"])
                for split in SPLITS
                if (curve := found.get(f"{split}/{what}"))
            },
            best if isinstance(best, int) and best >= 0 else None,
            known if what == "loss" else None,
        )
        for what in CURVES
    ]
    return [one for one in made if one is not None]


def _layers(record: Record) -> Table | None:
    found = record.get("layers") or {}
    columns = {"layer": "after", "kind": "activation", "units": "units", "dead": "dead",
               "saturated": "saturated", "rms_after": "size", "rank": "effective rank"}  # fmt: skip
    stage = "checkpoint" if found.get("checkpoint") else "start"
    rows = [
        [
            f"{row[name]:.1%}" if name in ("dead", "saturated") and row[name] is not None
            else row[name]
            for name in columns
        ]
        for row in found.get(stage) or ()
    ]  # fmt: skip
    caption = f"On training examples, {STAGES[stage]}"
    return Table(caption, list(columns.values()), rows) if rows else None


# --- figures --------------------------------------------------------------------------------------

Draw = Callable[[str, Record, Record], "Iterable[Figure | None]"]
"""``(element's id, finding, record) → figures``, None where there is nothing to draw."""


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
    "miscalibration": _reliability,
    "unused_capacity": _pruned,
}
"""What is drawn beside a finding."""
STEPS = {
    "divergence": "step",
    "loss_spikes": "worst_step",
    "overfitting": "since",
    "underfitting": "best_step",
    "still_improving": "best_step",
    "saturated_early": "step",
}
"""The number of a finding that is a step, marked in the curve of the loss."""
SECTIONS = {
    **dict.fromkeys(STEPS, "curves"),
    **dict.fromkeys(("learning_rate_too_high", "learning_rate_too_low"), "rates"),
}
"""The section of the page that shows what a finding without figures of its own is about."""
