"""The page of a data check: every finding with its numbers, and samples before and after."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jdlopt.data.check import Check, Finding
from jdlopt.errors import UserError
from jdlopt.report import commands, grid, samples
from jdlopt.report.cards import Cards, of_training
from jdlopt.report.figures import COLOURS, bars, matrix, scale
from jdlopt.report.page import Figure, Spec, Table, number, render
from jdlopt.report.saving import save

PAGE = "data_check.html"
MOST_PARTS = 40
"""Parts of a finding that its table lists."""
MOST_ROWS = 8
"""Rows of a part that its table names."""
MOST_BARS = 30
SHOWN = {"label_noise": "given → likely", "target_noise": "why", "odd_rows": "why"}
"""The kinds of finding whose examples are shown, and the title of what is said of each."""
MOST_EXAMPLES = 12
EXAMPLES = (8, 6, 4, 2, 1)
"""Examples in the picture: as many as stay under `PICTURE_BYTES`."""
PICTURE_BYTES = 600_000
HISTOGRAMS = 12
"""Columns of a table that are shown before and after preprocessing."""
BINS = 30
MEANINGS = {"error": "stops a run", "warning": "costs accuracy", "note": "for information"}


def write_page(check: Check, folder: Path, config: str | None = None) -> Path:
    """Writes ``data_check.html`` of a check, with samples as its config makes them.

    Args:
      check: what was found; its ``fields`` say how samples are preprocessed and augmented.
      folder: where; it is made if it is not there.
      config: the config file that was checked; None where a file was.

    Returns:
      The page's path.

    Raises:
      WorkdirError: the page can't be written.
    """
    return save(folder, make_page(check, _taken(check), config), PAGE)


def _taken(check: Check) -> tuple[samples.Samples, ...] | str:
    """Returns samples, or why there are none."""
    if check.dataset is None:
        return "The dataset can't be opened with this config; see above."
    try:
        return samples.take(check.fields)
    except UserError as error:
        return str(error)


def make_page(
    check: Check, taken: tuple[samples.Samples, ...] | str, config: str | None = None
) -> str:
    """Returns the page as HTML.

    Args:
      check: what was found.
      taken: samples, or why there are none.
      config: as in `write_page`.
    """
    lines = [line for one in check.findings for line in (one.config or "").splitlines()]
    target = getattr(check.fields, "target", None)
    source = grid.printable(check.source, 200)
    sizes = ", ".join(f"{count:,} {name}" for name, count in check.sizes.items())
    return render(
        "data_check",
        title="Data check",
        lead=f"{source}: {sizes}." if sizes else f"{source}.",
        footer="jdlopt data check",
        facts=[
            ("inputs", check.kind or "unknown"),
            *((f"{name}s", check.count(name)) for name in MEANINGS),
        ],
        looked_at=check.looked_at,
        findings=[
            {**_finding(place, one), "examples": examples_of(check, one)}
            for place, one in enumerate(check.findings)
        ],
        commands=commands.of_check(check.source, target, lines, config),
        where=commands.where({"data": {"source": check.source}}) if config else "",
        **_samples(taken),
    )


def _finding(place: int, finding: Finding) -> Mapping[str, object]:
    return {
        "problem": finding.problem,
        "severity": finding.severity,
        "meaning": MEANINGS[finding.severity],
        "where": grid.printable(finding.where, 120),
        "amount": f"{finding.count:,} of {finding.of:,} {finding.unit}",
        "text": _clean(finding.text),
        "advice": finding.advice,
        "config": (finding.config or "").splitlines(),
        "figure": _figure(f"finding-{place}-figure", finding),
        "parts": _parts(finding) if finding.parts else None,
    }


def examples_of(check: Check, finding: Finding) -> Cards | None:
    """Returns the first examples of each part of a finding that is about single ones."""
    title, dataset = SHOWN.get(finding.kind), check.dataset
    if title is None or dataset is None:
        return None
    found = check.firsts(finding, MOST_EXAMPLES)
    if not found:
        return None
    names, rows, places = zip(*found, strict=True)
    # the rows of a table are called as the finding calls them: counted from 1 there
    called = [f"row {row:,}" for row in rows] if check.first else None
    try:
        return of_training(dataset, places, title, list(map(grid.printable, names)), called)
    except UserError:
        return None


def _clean(text: str) -> str:
    return "\n".join(grid.printable(line, 2000) for line in text.splitlines())


def _parts(finding: Finding) -> Table:
    shown = finding.parts[:MOST_PARTS]
    columns: dict[str, list[object]] = {
        "where": [grid.printable(part.name) for part in shown],
        finding.unit: [int(part.count) for part in shown],
        "first rows": [
            ", ".join(str(int(row)) for row in part.rows[:MOST_ROWS])
            + (", …" if len(part.rows) > MOST_ROWS else "")
            for part in shown
        ],
        "detail": [grid.printable(part.detail, 200) for part in shown],
    }
    kept = {name: cells for name, cells in columns.items() if any(cell != "" for cell in cells)}
    cut = len(finding.parts) > MOST_PARTS
    caption = "Places" + (f", the first {MOST_PARTS} of {len(finding.parts)}" if cut else "")
    wide = [place for place, name in enumerate(kept) if name in ("first rows", "detail")]
    return Table(caption, list(kept), list(zip(*kept.values())), wide)


# --- figures --------------------------------------------------------------------------------------


def _figure(name: str, finding: Finding) -> Figure | None:
    numbers = finding.numbers
    if numbers.get("matrix"):
        labels = [grid.printable(one, 30) for one in numbers["names"]]
        total = int(np.sum(numbers["matrix"]))
        caption = f"{total:,} doubtful labels: the given class against the likely one"
        alternative = f"{caption}, {len(labels)} classes."
        axes = ("likely", "given")
        return matrix(name, caption, alternative, numbers["matrix"], labels, axes)
    if numbers.get("values"):
        return _bars(
            name, numbers["names"], numbers["values"], numbers["axis"],
            log=bool(numbers.get("log")), upright=bool(numbers.get("upright")),
        )  # fmt: skip
    if len(finding.parts) > 1 and len({part.count for part in finding.parts}) > 1:
        names = [part.name for part in finding.parts]
        return _bars(name, names, [int(part.count) for part in finding.parts], finding.unit)
    rows = [part.rows for part in finding.parts if len(part.rows)]
    if rows and finding.unit in ("cells", "rows", "examples"):
        return _positions(name, np.concatenate(rows), finding.unit)
    return None


def _bars(
    name: str,
    names: Sequence[str],
    values: Sequence[float],
    what: str,
    log: bool = False,
    upright: bool = False,
) -> Figure | None:
    rows = [(grid.printable(str(one), 30), value) for one, value in zip(names, values)]
    more = f", the first {MOST_BARS} of {len(rows)}" if len(rows) > MOST_BARS else ""
    caption = f"{what[:1].upper()}{what[1:]}{more}"
    return bars(name, caption, rows[:MOST_BARS], what, log=log, upright=upright)


def _positions(name: str, rows: np.ndarray, unit: str) -> Figure | None:
    """Returns where rows lie; None where they lie evenly, so that there is nothing to see."""
    counts, edges = np.histogram(rows, bins=min(BINS * 2, len(np.unique(rows))))
    if counts.min() == counts.max():
        return None
    bar = {**_bar((edges[:-1] + edges[1:]) / 2, counts), "width": float(edges[1] - edges[0])}
    layout = {"xaxis": scale("row"), "yaxis": scale(unit), "bargap": 0.05}
    caption = f"Positions: from row {int(rows.min()):,} to row {int(rows.max()):,}"
    return Figure(name, caption, f"{caption}, {len(rows):,} {unit}.", [bar], layout, 260)


def _bar(x: np.ndarray, y: np.ndarray, colour: int = 0) -> Spec:
    return {"type": "bar", "x": x, "y": y, "marker": {"color": COLOURS[colour]}}


# --- samples --------------------------------------------------------------------------------------


def _samples(taken: tuple[samples.Samples, ...] | str) -> dict[str, object]:
    """Returns what the page's template shows of samples: a part an input."""
    if isinstance(taken, str):
        return {"unavailable": _clean(taken), "samples": []}
    parts, count = [], 0
    for one in taken:
        part: dict[str, object] = dict.fromkeys(
            ("histograms", "note", "picture", "alternative", "changes")
        )
        part["input"] = grid.printable(one.input)
        changed = [
            [grid.printable(column.label), column.change]
            for column in one.columns
            if column.change is not None
        ]
        if changed:
            part["changes"] = Table("Mean absolute change", ["augmentation", "change"], changed)
        parts.append(part | (_histograms(one, count) if one.kind == "table" else _picture(one)))
        count += HISTOGRAMS
    return {"unavailable": "", "samples": parts}


def _picture(taken: samples.Samples) -> dict[str, object]:
    for count in EXAMPLES:
        made = grid.png([taken], count)
        if len(made) <= PICTURE_BYTES:
            names = ", ".join(column.label for column in taken.columns)
            shown = min(count, len(taken.labels))
            alternative = f"{shown} training examples in rows; columns: {names}"
            return {"picture": base64.b64encode(made).decode(), "alternative": alternative}
    return {}


def _histograms(taken: samples.Samples, first: int) -> dict[str, object]:
    raw, prepared = (column.values for column in taken.columns[:2])
    flat = prepared.reshape(len(prepared), -1)
    same = flat.shape[1] == raw.shape[1]
    names = taken.names or tuple(f"feature {i}" for i in range(raw.shape[1]))
    note = f"{len(raw):,} training rows"
    if raw.shape[1] > HISTOGRAMS:
        note += f", the first {HISTOGRAMS} of {raw.shape[1]} columns"
    if not same:
        note += f"; preprocessing makes {flat.shape[1]} columns of {raw.shape[1]}"
    made = [
        _histogram(f"sample-{first + i}", names[i], raw[:, i], flat[:, i] if same else None)
        for i in range(min(HISTOGRAMS, raw.shape[1]))
    ]
    empty = [grid.printable(name, 40) for name, one in zip(names, made) if one is None]
    if empty:
        note += f"; without any value: {', '.join(empty)}"
    return {"histograms": [one for one in made if one is not None], "note": note}


def _histogram(
    name: str, column: str, before: np.ndarray, after: np.ndarray | None
) -> Figure | None:
    """Returns a column's values, raw on the left, preprocessed on the right; None without any."""
    data, said = [], []
    layout: Spec = {"margin": {"l": 40, "r": 10, "t": 10, "b": 45}, "bargap": 0.02}
    parts = [("raw", before, "")]
    if after is not None:
        parts.append(("preprocessed", after, "2"))
    for index, (label, values, axis) in enumerate(parts):
        finite = values[np.isfinite(values)].astype(np.float64)
        if not len(finite):
            continue
        domain = [0.0, 1.0] if after is None else [[0.0, 0.46], [0.54, 1.0]][index]
        layout[f"xaxis{axis}"] = scale(label, domain=domain, anchor=f"y{axis}")
        layout[f"yaxis{axis}"] = {"automargin": True, "anchor": f"x{axis}"}
        counts, edges = np.histogram(finite, bins=BINS)
        bar = _bar((edges[:-1] + edges[1:]) / 2, counts, index)
        data.append({**bar, "xaxis": f"x{axis}", "yaxis": f"y{axis}"})
        ends = number(float(finite.min())), number(float(finite.max()))
        said.append(f"{label} from {ends[0]} to {ends[1]}")
    if not data:
        return None
    shown = grid.printable(column, 40)
    return Figure(name, shown, f"{shown}: {', '.join(said)}", data, layout, 240)
