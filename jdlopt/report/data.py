"""The page of a data check: every finding with its numbers, and samples before and after."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdlopt.config import to_dict
from jdlopt.data.check import Check, Finding
from jdlopt.errors import UserError, WorkdirError
from jdlopt.report import figures, grid, page, samples
from jdlopt.train import disk

PAGE = "data_check.html"
MOST_PARTS = 40
"""Parts of a finding that its table lists."""
MOST_ROWS = 8
"""Rows of a part that its table names."""
MOST_BARS = 30
EXAMPLES = (8, 6, 4, 2, 1)
"""Examples in the picture: as many as stay under `PICTURE_BYTES`."""
PICTURE_BYTES = 600_000
HISTOGRAMS = 12
"""Columns of a table that are shown before and after preprocessing."""
BINS = 30
WORDS = {"error": "stops a run", "warning": "costs accuracy", "note": "to know"}


def write_page(check: Check, folder: Path) -> Path:
    """Writes ``data_check.html`` of a check, with samples as its config makes them.

    Args:
      check: what was found; its ``fields`` say how samples are preprocessed and augmented.
      folder: where; it is made if it is not there.

    Returns:
      The page's path.

    Raises:
      WorkdirError: the page can't be written.
    """
    path = folder / PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        disk.write_aside(path, make_page(check, _taken(check)))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be written: {disk.reason(path, error)}.") from error
    return path


def _taken(check: Check) -> samples.Samples | str:
    """Returns samples, or why there are none."""
    if check.dataset is None:
        return "The dataset can't be opened as the config has it; see above."
    try:
        return samples.take(to_dict(check.fields))
    except UserError as error:
        return str(error)


def make_page(check: Check, taken: samples.Samples | str) -> str:
    """Returns the page as HTML.

    Args:
      check: what was found.
      taken: samples, or why there are none.
    """
    source = grid.printable(check.source, 200)
    sizes = ", ".join(f"{count:,} {name}" for name, count in check.sizes.items())
    counts = [(f"{name}s", page.number(check.count(name))) for name in WORDS]
    looked = "".join(f"<p>{page.text(sentence)}</p>" for sentence in check.looked_at)
    content = [
        page.facts([("inputs", page.text(check.kind or "unknown")), *counts]) + looked,
        page.section("findings", "What was found", _summary(check)),
        *(_finding(number, finding) for number, finding in enumerate(check.findings)),
        page.section("samples", "Samples", *_samples(taken)),
    ]
    lead = f"{source}: {sizes}." if sizes else f"{source}."
    return page.page("Data check", lead, content, "jdlopt data check")


def _summary(check: Check) -> str:
    if not check.findings:
        return "<p>Nothing was found that needs attention.</p>"
    rows = [
        [
            f'<a href="#finding-{number}">{page.text(finding.problem)}</a>',
            f'<td class="text">{finding.severity}: {WORDS[finding.severity]}</td>',
            f'<td class="text">{page.text(grid.printable(finding.where, 120))}</td>',
            _amount(finding),
            f'<td class="text">{_lines(finding.config) or page.text(finding.advice)}</td>',
        ]
        for number, finding in enumerate(check.findings)
    ]
    header = ["problem", "severity", "where", "how much", "what to do"]
    many = "1 finding" if len(rows) == 1 else f"{len(rows)} findings, the most severe first"
    return page.table(many, header, rows)


def _amount(finding: Finding) -> str:
    return page.text(f"{finding.count:,} of {finding.of:,} {finding.unit}")


def _lines(config: str | None) -> str:
    lines = [f"<code>{page.text(line)}</code>" for line in (config or "").splitlines()]
    return "<br>".join(lines)


def _finding(number: int, finding: Finding) -> str:
    name = f"finding-{number}"
    made = [
        f"<p><strong>{finding.severity}</strong>: {page.text(_clean(finding.text))}</p>",
        f"<p>{page.text(finding.advice)}</p>" if finding.advice else "",
    ]
    if finding.config:
        made.append(
            f'<pre id="{name}-config">{page.text(finding.config)}</pre>'
            f'<button type="button" class="copy" data-copy="{name}-config" '
            f'aria-label="Copy the config of: {page.text(finding.problem)}">Copy</button>'
        )
    made += [_figure(f"{name}-figure", finding), _parts(finding)]
    return page.section(name, finding.problem.capitalize(), *made)


def _clean(text: str) -> str:
    return "\n".join(grid.printable(line, 2000) for line in text.splitlines())


def _parts(finding: Finding) -> str:
    if not finding.parts:
        return ""
    rows = [
        [
            page.text(grid.printable(part.name)),
            page.number(int(part.count)),
            f'<td class="text">{page.text(_first(part.rows))}</td>',
            f'<td class="text">{page.text(grid.printable(part.detail, 200))}</td>',
        ]
        for part in finding.parts[:MOST_PARTS]
    ]
    more = len(finding.parts) - MOST_PARTS
    caption = f"Where it is, the first {MOST_PARTS} of {len(finding.parts)}" if more > 0 else (
        "Where it is"
    )  # fmt: skip
    return page.table(caption, ["where", finding.unit, "first rows", "detail"], rows)


def _first(rows: np.ndarray) -> str:
    shown = ", ".join(str(int(row)) for row in rows[:MOST_ROWS])
    return shown + (", …" if len(rows) > MOST_ROWS else "")


# --- figures --------------------------------------------------------------------------------------


def _figure(name: str, finding: Finding) -> str:
    numbers = finding.numbers
    if numbers.get("matrix"):
        return _matrix(name, numbers["matrix"], numbers["names"])
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
        return _places(name, np.concatenate(rows), finding.unit)
    return ""


def _bars(
    name: str,
    names: Sequence[str],
    values: Sequence[float],
    what: str,
    log: bool = False,
    upright: bool = False,
) -> str:
    shown = [grid.printable(str(one), 30) for one in names[:MOST_BARS]]
    # a place for each bar, named by its label: two columns may have one short name
    places = list(range(len(shown)))
    labels = [page.text(one) for one in shown]
    sizes = list(values[:MOST_BARS])
    bar: dict[str, Any] = {"type": "bar", "marker": {"color": figures.COLOURS[0]}}
    ticks = {"tickvals": places, "ticktext": labels}
    if upright:
        bar |= {"x": places, "y": sizes}
        layout = {"xaxis": {**ticks, "automargin": True}, "yaxis": figures.scale(what, log=log)}
        height = 320
    else:
        bar |= {"x": sizes, "y": places, "orientation": "h"}
        axis = {**ticks, "autorange": "reversed", "automargin": True}
        layout = {"xaxis": figures.scale(what, log=log), "yaxis": axis}
        height = 90 + 22 * len(shown)
    more = f", the first {MOST_BARS} of {len(names)}" if len(names) > MOST_BARS else ""
    told = "; ".join(f"{one} {page.number(value)}" for one, value in zip(shown[:8], sizes))
    caption = f"{what[:1].upper()}{what[1:]}{more}"
    return page.figure(name, caption, f"{caption}: {told}.", [bar], layout, height)


def _places(name: str, rows: np.ndarray, unit: str) -> str:
    counts, edges = np.histogram(rows, bins=min(BINS * 2, len(np.unique(rows))))
    middle = ((edges[:-1] + edges[1:]) / 2).tolist()
    bar = {"type": "bar", "x": middle, "y": counts.tolist(), "width": float(edges[1] - edges[0]),
           "marker": {"color": figures.COLOURS[0]}}  # fmt: skip
    layout = {"xaxis": figures.scale("row"), "yaxis": figures.scale(unit), "bargap": 0.05}
    words = f"Where they lie: from row {int(rows.min()):,} to row {int(rows.max()):,}"
    return page.figure(name, words, f"{words}, {len(rows):,} {unit}.", [bar], layout, 260)


def _matrix(name: str, matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    labels = [f"{page.text(grid.printable(one, 30))} " for one in names]  # a number stays a name
    data = [
        {
            "type": "heatmap",
            "z": matrix,
            "x": labels,
            "y": labels,
            "text": matrix,
            "texttemplate": "%{text}" if len(names) <= 20 else "",
            "colorscale": figures.SCALE,
            "showscale": False,
            "xgap": 1,
            "ygap": 1,
            "hovertemplate": "given %{y}, looks like %{x}: %{text}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": figures.scale("looks like", type="category", showgrid=False),
        "yaxis": figures.scale("given", autorange="reversed", type="category", showgrid=False),
    }
    total = int(np.sum(matrix))
    caption = f"{total:,} doubtful labels: what is given against what it looks like"
    return page.figure(name, caption, f"{caption}, {len(names)} classes.", data, layout, 440)


# --- samples --------------------------------------------------------------------------------------


def _samples(taken: samples.Samples | str) -> list[str]:
    if isinstance(taken, str):
        return [f"<p>There are no samples: {page.text(_clean(taken))}</p>"]
    made = [
        "<p>Training examples: as they are, as preprocessing makes them, and as each augmentation "
        "of the config changes them.</p>"
    ]
    if taken.kind == "table":
        made.append(_histograms(taken))
    else:
        made.append(_picture(taken))
    made.append(_changes(taken.columns))
    return made


def _picture(taken: samples.Samples) -> str:
    for count in EXAMPLES:
        made = grid.png(taken, count)
        if len(made) <= PICTURE_BYTES:
            break
    else:
        return "<p>One example takes too much room to be shown here: see `jdlopt data show`.</p>"
    count = min(count, len(taken.labels))
    names = ", ".join(column.label for column in taken.columns)
    alternative = f"{count} training examples in rows; columns: {names}"
    encoded = base64.b64encode(made).decode()
    return (
        '<figure><div class="scroll" tabindex="0" role="group" aria-label="Samples">'
        f'<img alt="{page.text(alternative)}" src="data:image/png;base64,{encoded}"></div>'
        f"<figcaption>{page.text(alternative)}.</figcaption></figure>"
    )


def _changes(columns: Sequence[samples.Column]) -> str:
    rows = [
        [page.text(grid.printable(column.label)), page.number(column.change)]
        for column in columns
        if column.change is not None
    ]
    return page.table("Mean absolute change", ["augmentation", "change"], rows) if rows else ""


def _histograms(taken: samples.Samples) -> str:
    raw, prepared = (column.values for column in taken.columns[:2])
    flat = prepared.reshape(len(prepared), -1)
    same = flat.shape[1] == raw.shape[1]
    names = taken.names or tuple(f"feature {i}" for i in range(raw.shape[1]))
    made = [
        _histogram(f"sample-{i}", names[i], raw[:, i], flat[:, i] if same else None)
        for i in range(min(HISTOGRAMS, raw.shape[1]))
    ]
    note = f"{len(raw):,} training rows"
    if raw.shape[1] > HISTOGRAMS:
        note += f", the first {HISTOGRAMS} of {raw.shape[1]} columns"
    if not same:
        note += f"; preprocessing makes {flat.shape[1]} columns of {raw.shape[1]}"
    return f'<p>{note}.</p><div class="grid">{"".join(made)}</div>'


def _histogram(name: str, column: str, before: np.ndarray, after: np.ndarray | None) -> str:
    shown = grid.printable(column, 40)
    parts = [("raw", before, "x", "y"), ("preprocessed", after, "x2", "y2")]
    data, told = [], []
    layout: dict[str, Any] = {
        "margin": {"l": 40, "r": 10, "t": 10, "b": 45},
        "bargap": 0.02,
        "xaxis": figures.scale("raw", domain=[0.0, 0.46] if after is not None else [0.0, 1.0]),
        "yaxis": {"automargin": True},
    }
    if after is not None:
        layout["xaxis2"] = figures.scale("preprocessed", domain=[0.54, 1.0], anchor="y2")
        layout["yaxis2"] = {"automargin": True, "anchor": "x2"}
    for index, (label, values, x, y) in enumerate(parts):
        finite = np.array([]) if values is None else values[np.isfinite(values)].astype(np.float64)
        if not len(finite):
            continue
        counts, edges = np.histogram(finite, bins=BINS)
        middle = (edges[:-1] + edges[1:]) / 2
        data.append(
            {
                "type": "bar",
                "x": middle.tolist(),
                "y": counts.tolist(),
                "xaxis": x,
                "yaxis": y,
                "marker": {"color": figures.COLOURS[index]},
            }
        )
        low, high = page.number(float(finite.min())), page.number(float(finite.max()))
        told.append(f"{label} from {low} to {high}")
    if not data:
        return f"<figure><figcaption>{page.text(shown)} has no value.</figcaption></figure>"
    words = f"{shown}: {', '.join(told)}"
    return page.figure(name, shown, words, data, layout, 240)
