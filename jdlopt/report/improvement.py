"""The report of ``improve``: the ladder of steps, what was tried and dropped, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt.errors import WorkdirError
from jdlopt.report import evidence, figures, page, save

IMPROVEMENT = "improve.json"
SHOWN = 40
"""Candidates of a round that are shown."""


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` of an improvement's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    path = workdir / IMPROVEMENT
    record = evidence.read(path, {"metric": str, "steps": list, "tried": list, "status": str})
    try:
        content = _content(record, workdir)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(
            f"{path}: is not as jdlopt writes it: {error!r}. The same command writes it again."
        ) from error
    steps = len(record["steps"])
    lead = f"{steps} {'step' if steps == 1 else 'steps'} up by {record['metric']}."
    footer = (
        "Techniques were chosen and confirmed on different seeds; the test split was looked at "
        "once, at the end."
    )
    return save(workdir, page.page(f"Improvement {workdir.resolve().name}", lead, content, footer))


def _content(record: Mapping[str, Any], workdir: Path) -> list[str]:
    test = record.get("test") or {}
    facts = [
        ("status", page.text(record["status"])),
        (f"whole gain, {record['metric']}", evidence.interval(record.get("confirmed"))),
    ]
    if test:
        facts.append((f"whole gain, {test['metric']}", evidence.interval(test["effect"])))
    facts.append(("minutes", page.number(record["seconds"] / 60)))
    content = [page.facts(facts)]
    if record.get("why"):
        content.append(f"<p>It ended because {page.text(record['why'])}.</p>")
    content.append(page.section("ladder", "The ladder", *_ladder(record)))
    if record["steps"]:
        content.append(page.section("config", "The config", _config(record, workdir)))
    if record.get("findings"):
        content.append(page.section("findings", "What diagnosis says of it", _findings(record)))
    content.append(page.section("tried", "What was tried", *map(_round, record["tried"])))
    if test:
        content.append(page.section("test", "On the test split", _test(test)))
    return content


def _ladder(record: Mapping[str, Any]) -> list[str]:
    steps = record["steps"]
    if not steps:
        return ["<p>No technique that was tried survived a fair test: the baseline stands.</p>"]
    rows = []
    for number, step in enumerate(steps, 1):
        before, after = step.get("before_step_seconds"), step.get("step_seconds")
        cost = f"{after / before:.2f}×" if before and after else "–"
        rows.append([
            page.number(number),
            page.text(step["technique"]),
            evidence.interval(step["effect"]),
            page.number(step["value"]),
            cost,
            page.number(step["n_params"]),
            f'<td class="text">{page.text(_changes(step["change"]))}</td>',
        ])  # fmt: skip
    header = ("step", "technique", "gain, interval", record["metric"], "step time", "parameters",
              "change")  # fmt: skip
    forest = evidence.forest(
        "steps",
        "What each step gained over the one before, on seeds that did not choose it",
        [page.text(step["technique"]) for step in steps],
        [("gain", [step["effect"] for step in steps])],
    )
    return [forest, page.table("Steps that were adopted", header, rows)]


def _changes(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {evidence.shown(value)}" for key, value in change.items())


def _config(record: Mapping[str, Any], workdir: Path) -> str:
    path = workdir / "improved.py"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "<p>improved.py is not there any more.</p>"
    return (
        f"<p>{page.text(path.name)}, the baseline's file with changed lines.</p>"
        f'<button type="button" class="copy" data-copy="improved">Copy</button>'
        f'<pre class="long" id="improved" tabindex="0">{page.text(text)}</pre>'
    )


def _findings(record: Mapping[str, Any]) -> str:
    items = []
    for one in record["findings"]:
        level = one["level"] if one["level"] in ("warning", "good") else "note"
        level = "warning" if one["level"] == "serious" else level
        hints = ", ".join(one.get("techniques", ())) or "–"
        items.append(
            f'<li class="{level}"><span class="level">{page.text(one["level"])}</span> '
            f'{page.text(one["text"])}<div class="hint">suggests: {page.text(hints)}</div></li>'
        )
    return f'<ul class="readings">{"".join(items)}</ul>'


def _round(record: Mapping[str, Any]) -> str:
    confirmed = {one["technique"]: one["effect"] for one in record["confirmed"]}
    rows = []
    for one in record["candidates"][:SHOWN]:
        effect = confirmed.get(one["technique"])
        verdict = "left for later: dear" if one.get("later") else "did not get so far"
        if effect is not None:
            verdict = "adopted" if effect["interval"][0] > 0 else "not confirmed"
        rows.append([
            page.text(one["technique"]),
            page.number(one["seeds"]),
            evidence.gain(one["gain"]),
            f"{one['cost']:.2f}×",
            evidence.interval(effect),
            verdict,
            f'<td class="text">{page.text(_changes(one["change"]))}</td>',
        ])  # fmt: skip
    header = (
        "technique",
        "seeds",
        "gain while choosing",
        "training time",
        "gain confirmed",
        "verdict",
        "change",
    )
    number = record["round"]
    more = len(record["candidates"]) - SHOWN
    note = f"<p>{more} more got no further than the first seeds.</p>" if more > 0 else ""
    table = page.table(f"Round {number}", header, rows)
    opened = " open" if number == 1 else ""
    return f"<details{opened}><summary>Round {number}</summary>{table}{note}</details>"


def _test(test: Mapping[str, Any]) -> str:
    seeds: Sequence[Any] = test["seeds"]
    data = [
        {
            "type": "scatter", "mode": "lines+markers", "x": ["baseline", "improved"], "y": [a, b],
            "name": f"seed {seed}", "line": {"color": figures.COLOURS[0], "width": 1.5},
        }
        for seed, a, b in zip(seeds, test["baseline"], test["improved"])
    ]  # fmt: skip
    words = f"{test['metric']} with {len(seeds)} fresh seeds: {evidence.interval(test['effect'])}"
    layout = {
        "xaxis": figures.scale("", type="category"), "yaxis": figures.scale(test["metric"]),
    }  # fmt: skip
    return page.figure("tested", words, words, data, layout, 340)
