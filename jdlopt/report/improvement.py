"""The report of ``improve``: what was adopted, what was tried and dropped, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jdlopt.evidence.options import ACCURACY, SIZE
from jdlopt.evidence.remaining import in_words, unjudged
from jdlopt.report import commands
from jdlopt.report.effects import changes, forest, gain, interval, pair, ratio
from jdlopt.report.figures import BEST, Line, curves, scale
from jdlopt.report.page import Figure, Table, number, render
from jdlopt.report.records import as_written, read
from jdlopt.report.saving import save
from jdlopt.study.records import Record

IMPROVEMENT = "improve.json"
SHOWN = 40
"""Candidates of a round that are shown."""


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` of an improvement's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    path = workdir / IMPROVEMENT
    needed = {"metric": str, "steps": list, "tried": list, "status": str, "aim": str}
    record = read(path, needed)
    with as_written(path):
        text = _page(record, workdir)
    return save(workdir, text)


def _page(record: Record, workdir: Path) -> str:
    test, steps, metric = record.get("test") or {}, record["steps"], record["metric"]
    facts = [
        ("status", record["status"]),
        *_saved(record),
        (f"total gain, {metric}", *pair(record.get("confirmed"))),
        *([(f"total gain, {test['metric']}", *pair(test["effect"]))] if test else []),
        ("minutes", record["seconds"] / 60),
    ]
    return render(
        "improvement",
        title=f"Improvement {workdir.resolve().name}",
        lead=_lead(record),
        footer="Techniques were chosen and confirmed on different seeds; the test split was "
        "evaluated once, at the end.",
        facts=facts,
        why=record.get("why"),
        left=in_words(record),
        steps=_steps(record) if steps else None,
        adopted=_adopted(record),
        commands=commands.of_improvement(workdir) if steps else [],
        where="",
        improved=_improved(workdir),
        findings=[
            {
                "level": one["level"],
                "title": "",
                "text": one["text"],
                "hint": f"Techniques: {', '.join(tried)}"
                if (tried := one.get("techniques"))
                else "",
            }
            for one in record.get("findings") or ()
        ],
        rounds=[_round(one, record["aim"]) for one in record["tried"]],
        test=_test(test) if test else None,
    )


def _lead(record: Record) -> str:
    count, metric = len(record["steps"]), record["metric"]
    lead = f"{count} {'technique' if count == 1 else 'techniques'} adopted, "
    if record["aim"] == ACCURACY:
        return f"{lead}judged by {metric}."
    wanted = "smaller" if record["aim"] == SIZE else "faster"
    return f"{lead}for a {wanted} model that loses at most {record['within']} of {metric}."


def _saved(record: Record) -> list[tuple[object, ...]]:
    """What predictions cost now, and the baseline's, where they were to cost less."""
    if record["aim"] == ACCURACY:
        return []
    found: list[tuple[object, ...]] = [
        (f"may be lost of {record['metric']}", record["margin"], record["within"])
    ]
    cost = record.get("cost")
    if cost:
        before, after = cost["baseline"], cost["improved"]
        found.append(("bytes", after["bytes"], f"{number(before['bytes'])} before"))
        found += [
            (f"ms at batch {size}", one["median"], f"{ratio(one['against'])} the baseline's")
            for size, one in after["ms"].items()
        ]
    return found


def _steps(record: Record) -> Figure:
    steps = record["steps"]
    over = "the config before it" if record["aim"] == ACCURACY else "the baseline"
    told = "" if record["aim"] == ACCURACY else "; the dotted line is what may be lost"
    found = forest(
        "steps",
        f"Gain of each technique over {over}, on seeds that did not choose it{told}",
        [step["technique"] for step in steps],
        [("gain", [step["effect"] for step in steps])],
    )
    if told:
        at = -record["margin"]
        line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": at, "x1": at,
                "line": {"color": BEST, "dash": "dot", "width": 2}}  # fmt: skip
        found.layout["shapes"] = [*found.layout.get("shapes", ()), line]
    return found


def _what_is_saved(aim: str) -> tuple[str, ...]:
    """The column of what predictions cost as a multiple of the baseline's, if it is the aim."""
    return () if aim == ACCURACY else ("bytes",) if aim == SIZE else ("time of a prediction",)


def _adopted(record: Record) -> Table:
    saved, rows = _what_is_saved(record["aim"]), []
    for place, step in enumerate(record["steps"], 1):
        before, after = step.get("before_step_seconds"), step.get("step_seconds")
        cost = f"{after / before:.2f}×" if before and after else "–"
        rows.append([place, step["technique"], pair(step["effect"]), step["value"],
                     *(ratio(step["share"]) for _ in saved), cost, step["n_params"],
                     changes(step["change"])])  # fmt: skip
    header = ("step", "technique", "gain, interval", record["metric"], *saved, "step time",
              "parameters", "change")  # fmt: skip
    caption = "In the order in which they were adopted"
    return Table(caption, header, rows, wide=(len(header) - 1,))


def _improved(workdir: Path) -> str | None:
    try:
        return (workdir / "improved.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _round(record: Record, aim: str) -> Mapping[str, object]:
    confirmed = {one["technique"]: one for one in record["confirmed"]}
    saved = _what_is_saved(aim)
    promising = {one["technique"] for one in unjudged(record)}
    rows = []
    for one in record["candidates"][:SHOWN]:
        judged = confirmed.get(one["technique"])
        verdict = "eliminated early"
        if one.get("later"):
            verdict = "deferred: expensive" if aim == ACCURACY else "deferred"
        if not one["seeds"]:
            verdict = "not tried: out of time"
        elif one["gain"] is None:
            verdict = "a training failed"
        elif judged is not None:
            verdict = "adopted" if judged["adopted"] else "not confirmed"
        elif one["technique"] in promising:
            verdict = "promising, not tested yet"
        seeds, cost = (one["seeds"], f"{one['cost']:.2f}×") if one["seeds"] else ("–", "–")
        effect = judged["effect"] if judged else None
        rows.append([one["technique"], seeds, gain(one["gain"]),
                     *(ratio(one["share"]) for _ in saved), cost, pair(effect), verdict,
                     changes(one["change"])])  # fmt: skip
    header = ("technique", "seeds", "gain while choosing", *saved, "training time",
              "gain confirmed", "verdict", "change")  # fmt: skip
    shorter = record.get("shorter", 1)
    how = f", chosen by trainings {shorter} times shorter" if shorter > 1 else ""
    return {
        "table": Table(f"Round {record['round']}{how}", header, rows, wide=(len(header) - 1,)),
        "more": max(0, len(record["candidates"]) - SHOWN),
    }


def _test(test: Record) -> Figure:
    metric, seeds = test["metric"], test["seeds"]
    lines = [
        Line(f"seed {seed}", (0, 1), pair, listed=False)
        for seed, *pair in zip(seeds, test["baseline"], test["improved"])
    ]
    caption = f"{metric} with {len(seeds)} fresh seeds: {interval(test['effect'])}"
    found = curves("tested", caption, lines, metric, "", height=340)
    for one in found.data:
        one["mode"] = "lines+markers"
    found.layout["xaxis"] = scale(
        "", tickvals=[0, 1], ticktext=["baseline", "improved"], range=[-0.2, 1.2]
    )
    return found
