"""The page of ``compress``: what was tried, what it loses and saves, and what was chosen."""

from __future__ import annotations

from pathlib import Path

from jdlopt.report import commands
from jdlopt.report.effects import forest, gain, pair, ratio
from jdlopt.report.figures import BAD, BEST, COLOURS, GREY, scale, trace
from jdlopt.report.page import Figure, Table, number, render
from jdlopt.report.records import as_written, read
from jdlopt.report.saving import save
from jdlopt.study.records import Record

COMPRESSION, PAGE = "compress.json", "compress.html"
HUE = {"accepted": COLOURS[2], "rejected": BAD, "undecided": GREY, "baseline": COLOURS[0]}


def write_page(workdir: Path) -> Path:
    """Writes ``compress.html`` of a compression's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    path = workdir / COMPRESSION
    needed = {"metric": str, "status": str, "candidates": list, "batch_sizes": list, "seeds": list,
              "within": str, "not_applicable": dict}  # fmt: skip
    record = read(path, needed)
    with as_written(path):
        text = _page(record, workdir)
    return save(workdir, text, PAGE)


def _page(record: Record, workdir: Path) -> str:
    base, rows = record["baseline"], record["candidates"]
    known = [row for row in rows if row["loss"]]
    best = next((row for row in rows if row["name"] == record["chosen"]), None)
    test, small = record.get("test"), []
    if best is not None:
        small = [
            ("bytes", best["bytes"], f"{ratio(best['bytes'] / base['bytes'])} the run's"),
            *(
                (f"ms at batch {size}", best["ms"][size]["median"],
                 f"{ratio(best['ms'][size]['against'])} the run's")
                for size in map(str, record["batch_sizes"]) if size in best["ms"]
            ),
        ]  # fmt: skip
    facts = [
        ("chosen", record["chosen"] or "nothing"),
        (f"may be lost of {record['metric']}", record["margin"], record["within"]),
        *([("loss of the chosen", *pair(best["loss"]))] if best else []),
        *small,
        *([(test["metric"], test["chosen"], f"the run's {number(test['baseline'])}")]
          if test else []),
    ]  # fmt: skip
    every = [base, *rows] if base else rows
    return render(
        "compression",
        title=f"Compression {workdir.resolve().name}",
        lead=f"{len(rows)} candidates by {record['metric']}, over {len(record['seeds'])} seeds; "
        f"the {'smallest' if record['prefer'] == 'size' else 'fastest'} within the margin is "
        "taken.",
        footer="Each candidate starts from each seed's own baseline weights; the test split was "
        "evaluated once, with the chosen model.",
        facts=facts,
        why=record.get("why"),
        level=f"{record['level']:.0%}",
        losses=_losses(record, known) if known else None,
        fronts=_fronts(record, every) if base and base["bytes"] else [],
        candidates=_table(record, every),
        runtime=record["runtime"],
        refused=list(record["not_applicable"].items()),
        failed=list((record.get("failed_seeds") or {}).items()),
        commands=commands.of_compression(workdir, record),
        where=commands.where(record.get("config") or {}),
    )


def _losses(record: Record, known: list[Record]) -> Figure:
    label = f"loss of {record['metric'].partition('/')[2]}"
    found = forest(
        "losses",
        "Losses with their intervals; the dotted line is the margin, left of zero is better",
        [row["name"] for row in known],
        [(label, [row["loss"] for row in known])],
    )
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": record["margin"],
            "x1": record["margin"], "line": {"color": BEST, "dash": "dot", "width": 2}}  # fmt: skip
    found.layout["shapes"] = [*found.layout.get("shapes", ()), line]
    found.layout["xaxis"] = {**found.layout["xaxis"], **scale(label)}
    return found


def _fronts(record: Record, rows: list[Record]) -> list[Figure]:
    """The metric against bytes, and against the time at the largest batch."""
    size = str(record["batch_sizes"][-1])
    across = [("bytes", "bytes", {row["name"]: row["bytes"] for row in rows})]
    times = {row["name"]: row["ms"][size]["median"] if size in row["ms"] else None for row in rows}
    across.append(("ms", f"ms at batch {size}", times))
    return [_front(record, rows, *one) for one in across]


def _front(
    record: Record, rows: list[Record], name: str, title: str, costs: dict[str, float | None]
) -> Figure:
    shown = [row for row in rows if costs[row["name"]] and row["value"] is not None]
    data = [
        trace(
            "markers",
            [costs[row["name"]] for row in some],
            [row["value"] for row in some],
            text=[_told(row, title, costs) for row in some],
            hoverinfo="text",
            name=decision,
            marker={"color": HUE[decision], "size": 11,
                    "symbol": ["circle" if row["on_front"] else "circle-open" for row in some]},
        )
        for decision in HUE
        if (some := [row for row in shown if row["decision"] == decision])
    ]  # fmt: skip
    found = [costs[row["name"]] or 0.0 for row in shown]
    wide = bool(found) and max(found) > 20 * min(found)
    layout = {"xaxis": scale(title, wide), "yaxis": scale(record["metric"]), "showlegend": True}
    caption = f"{record['metric']} against {title}; filled: none is better in loss, bytes and time."
    said = "; ".join(_told(row, title, costs) for row in shown[:12])
    return Figure(name, caption, f"{caption} {said}.", data, layout, 360)


def _told(row: Record, title: str, costs: dict[str, float | None]) -> str:
    cost = costs[row["name"]]
    return f"{row['name']}: {number(row['value'])}, {title} {number(cost)} ({row['decision']})"


def _table(record: Record, rows: list[Record]) -> Table:
    sizes = [str(size) for size in record["batch_sizes"]]
    made, told = [], any(row["reason"] for row in rows)
    forms = len({row["timed_as"] for row in rows} - {None}) > 1
    for row in rows:
        is_base = row["decision"] == "baseline"
        times = [
            (one["median"], f"{number(one['low'])} to {number(one['high'])}, "
                            f"{ratio(one['against'])}")
            if (one := row["ms"].get(size)) else None
            for size in sizes
        ]  # fmt: skip
        made.append(
            [
                row["name"],
                row["decision"],
                (row["value"], _interval(record, row)),
                "–" if is_base else pair(row["loss"]),
                row["bytes"],
                row["macs"],
                *times,
                *([row["timed_as"] or "–"] if forms else []),
                *([row["reason"] or ""] if told else []),
            ]
        )
    header = ("candidate", "decision", record["metric"].partition("/")[2], "loss", "bytes", "MACs",
              *(f"ms at {size}" for size in sizes), *(["timed as"] if forms else []),
              *(["why"] if told else []))  # fmt: skip
    wide = (len(header) - 1,) if told else ()
    return Table("The run and all candidates", header, made, wide=wide)


def _interval(record: Record, row: Record) -> str:
    """The interval of a candidate's metric: the baseline's mean less the interval of the loss."""
    base, effect = record["baseline"], row["loss"]
    if row["decision"] == "baseline" or not effect or None in effect["interval"]:
        return ""
    seeds = [base["values"][seed] for seed in row["values"]]
    mean, sign = sum(seeds) / len(seeds), -1 if record["direction"] == "maximize" else 1
    ends = sorted(mean + sign * end for end in effect["interval"])
    return f"{gain(ends[0]).lstrip('+')} to {gain(ends[1]).lstrip('+')}"
