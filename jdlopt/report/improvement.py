"""The report of ``improve``: what was adopted, what was tried and dropped, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jdlopt.evidence.remaining import in_words, unjudged
from jdlopt.report import commands
from jdlopt.report.effects import changes, forest, gain, interval, pair
from jdlopt.report.figures import Line, curves, scale
from jdlopt.report.page import Figure, Table, render
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
    record = read(path, {"metric": str, "steps": list, "tried": list, "status": str})
    with as_written(path):
        text = _page(record, workdir)
    return save(workdir, text)


def _page(record: Record, workdir: Path) -> str:
    test, steps, metric = record.get("test") or {}, record["steps"], record["metric"]
    facts = [
        ("status", record["status"]),
        (f"total gain, {metric}", *pair(record.get("confirmed"))),
        *([(f"total gain, {test['metric']}", *pair(test["effect"]))] if test else []),
        ("minutes", record["seconds"] / 60),
    ]
    return render(
        "improvement",
        title=f"Improvement {workdir.resolve().name}",
        lead=f"{len(steps)} {'technique' if len(steps) == 1 else 'techniques'} adopted, judged by "
        f"{metric}.",
        footer="Techniques were chosen and confirmed on different seeds; the test split was "
        "evaluated once, at the end.",
        facts=facts,
        why=record.get("why"),
        left=in_words(record),
        steps=forest(
            "steps",
            "Gain of each technique over the config before it, on seeds that did not choose it",
            [step["technique"] for step in steps],
            [("gain", [step["effect"] for step in steps])],
        )
        if steps
        else None,
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
        rounds=[_round(one) for one in record["tried"]],
        test=_test(test) if test else None,
    )


def _adopted(record: Record) -> Table:
    rows = []
    for number, step in enumerate(record["steps"], 1):
        before, after = step.get("before_step_seconds"), step.get("step_seconds")
        cost = f"{after / before:.2f}×" if before and after else "–"
        rows.append([number, step["technique"], pair(step["effect"]), step["value"], cost,
                     step["n_params"], changes(step["change"])])  # fmt: skip
    header = ("step", "technique", "gain, interval", record["metric"], "step time", "parameters",
              "change")  # fmt: skip
    return Table("In the order in which they were adopted", header, rows, wide=(6,))


def _improved(workdir: Path) -> str | None:
    try:
        return (workdir / "improved.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _round(record: Record) -> Mapping[str, object]:
    confirmed = {one["technique"]: one["effect"] for one in record["confirmed"]}
    promising = {one["technique"] for one in unjudged(record)}
    rows = []
    for one in record["candidates"][:SHOWN]:
        effect = confirmed.get(one["technique"])
        verdict = "deferred: expensive" if one.get("later") else "eliminated early"
        if not one["seeds"]:
            verdict = "not tried: out of time"
        elif one["gain"] is None:
            verdict = "a training failed"
        elif effect is not None:
            verdict = "adopted" if effect["interval"][0] > 0 else "not confirmed"
        elif one["technique"] in promising:
            verdict = "promising, not tested yet"
        seeds, cost = (one["seeds"], f"{one['cost']:.2f}×") if one["seeds"] else ("–", "–")
        rows.append([one["technique"], seeds, gain(one["gain"]), cost,
                     pair(effect), verdict, changes(one["change"])])  # fmt: skip
    header = ("technique", "seeds", "gain while choosing", "training time", "gain confirmed",
              "verdict", "change")  # fmt: skip
    return {
        "table": Table(f"Round {record['round']}", header, rows, wide=(6,)),
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
