"""The verb ``compress``: a finished run made smaller or faster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdlopt.cli.show import DONE, console, number, print_json, print_path, run_of
from jdlopt.cli.study import stoppable
from jdlopt.cli.verbs import CompressFlags

COLOURS = {"accepted": "green", "rejected": "red", "undecided": "yellow", "baseline": ""}


def compress(flags: CompressFlags) -> int:
    """Compresses a run, and writes ``compress.json`` and ``compress.html``."""
    flags.options.check()
    place = Path(run_of("compress", flags))
    from jdlopt.compress import compress as compression
    from jdlopt.train.disk import as_json

    out = None if flags.json else console()

    def say(text: str) -> None:
        if out is not None:
            out.print(text, soft_wrap=True)

    with stoppable() as stopped:
        record = compression.compress_run(
            place, flags.out, flags.options, flags.allow_code, say, stopped
        )
    workdir = Path(flags.out or place / compression.COMPRESSED)
    page = None
    if flags.report:
        from jdlopt.report.compression import write_page

        page = write_page(workdir)
    if flags.json:
        print_json(as_json({**record, "out": str(workdir)}))
    else:
        _print(record, page)
    return DONE


def _print(record: Mapping[str, Any], page: Path | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console()
    limit = "" if record["margin"] is None else f", {number(record['margin'])} may be lost"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    sizes = [str(size) for size in record["batch_sizes"]]
    for name in ("candidate", "decision", "loss", "at most", "bytes",
                 *(f"time at {one}" for one in sizes)):  # fmt: skip
        left = name in ("candidate", "decision")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    baseline = record["baseline"]
    for row in [baseline, *record["candidates"]] if baseline else []:
        known = row["loss"] if row is not baseline else None
        table.add_row(
            row["name"] + (" *" if row["on_front"] else ""),
            Text(row["decision"], COLOURS[row["decision"]]),
            *(_lost(known["mean"]), _lost(known["interval"][1])) if known else ("–", "–"),
            _count(row["bytes"]),
            *(_time(row["ms"].get(one)) for one in sizes),
        )
    title = f"{record['metric']}, {len(record['seeds'])} seeds{limit}"
    if baseline and baseline["value"] is not None:
        title += f"; the baseline's is {number(baseline['value'])}"
    out.print(title, style="italic", soft_wrap=True)
    out.print(table)
    for row in record["candidates"]:
        if row["reason"]:
            out.print(f"{row['name']}: {row['reason']}", style="dim", soft_wrap=True)
    for name, reason in record["not_applicable"].items():
        out.print(f"{name}: not tried: {reason}", style="dim", soft_wrap=True)
    out.print(f"It ended because {record['why']}.")
    out.print(
        "* none is better in loss, bytes and time; times are multiples of the baseline's, in "
        f"{record['runtime']}{_forms(record)}.",
        soft_wrap=True,
    )
    if record["chosen"] is None:
        out.print("Nothing is chosen: the run stands as it is.")
    else:
        test = record["test"]
        told = f"; {test['metric']} {number(test['chosen'])}" if test else ""
        if test and test["baseline"] is not None:
            told += f", the run's {number(test['baseline'])}"
        out.print(f"chosen: {record['chosen']}{told}", soft_wrap=True)
        print_path(out, record["directory"], "a run: predict, eval, report, export take it")
    if page is not None:
        out.print(f"  {page}", soft_wrap=True)


def _forms(record: Mapping[str, Any]) -> str:
    """What is timed as something else than the run is."""
    rows = record["candidates"]
    own = (record["baseline"] or {}).get("timed_as")
    others = dict.fromkeys(row["timed_as"] for row in rows if row["timed_as"] not in (own, None))
    told = [
        f"{one}: {', '.join(row['name'] for row in rows if row['timed_as'] == one)}"
        for one in others
    ]
    return f" ({'; '.join([f'the run as {own}', *told])})" if told else ""


def _lost(value: float | None) -> str:
    return "–" if value is None or abs(value) == float("inf") else f"{value:+.4f}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _time(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['against']:.2f}×"
