"""What a run's page shows of ``profile.json``: where the time of its steps goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jdlopt.profiling.record import PROFILE, SHARES
from jdlopt.report import figures
from jdlopt.report.page import Figure, Table, number
from jdlopt.report.records import as_written, read
from jdlopt.train.memory import shown

ROWS, BARS, ARRAYS = 25, 15, 10
"""Operations, lines of source and arrays that the page shows at most."""
NEEDED = {"steps": int, "seconds": float, "shares": dict, "operations": list, "lines": list}


class Section(NamedTuple):
    """The section on a profile.

    Attributes:
      text: what was traced.
      figures: shares of the time, and lines of source.
      operations: a row an operation.
      arrays: a row an array of the step's memory; None where it is not known.
    """

    text: str
    figures: Sequence[Figure]
    operations: Table
    arrays: Table | None


def section(workdir: Path) -> Section | None:
    """Returns what a page shows of a directory's profile; None where there is none.

    Raises:
      WorkdirError: the record can't be read, or is not as jdlopt writes it.
    """
    path = workdir / PROFILE
    if not path.is_file():
        return None
    record = read(path, NEEDED)
    with as_written(path):
        steps, each = record["steps"], record["seconds"] / record["steps"]
        text = (
            f"{steps:,} steps of {record['batch_size']:,} examples, {number(1e3 * each)} ms each, "
            f"on {record['devices']} × {record['device']}; before the first one "
            f"{record['compile_seconds']:.1f} s of compiling."
        )
        shares = [(words, record["shares"].get(kind)) for kind, words in SHARES.items()]
        lines = [(_short(one["where"]), one["share"]) for one in record["lines"][:BARS]]
        bars = [
            figures.bars("profile-time", "Where the time of a step goes", shares, "share"),
            figures.bars("profile-lines", "Operations by line of source", lines, "share"),
        ]
        operations = [_operation(one, steps) for one in record["operations"][:ROWS]]
        return Section(
            text,
            [one for one in bars if one is not None],
            Table(
                "Operations of a step, the longest first; MFLOP and MB are those of one time",
                ["operation", "%", "ms", "times", "MFLOP", "MB", "layer", "line"],
                operations,
                (6, 7),
            ),
            _arrays(record.get("memory")),
        )


def _operation(one: Mapping[str, float | str | None], steps: int) -> list[object]:
    flops, nbytes = one["flops"], one["nbytes"]
    kind = one["kind"] if one["kind"] == one["name"] else f"{one['kind']} {one['name']}".strip()
    return [
        kind,
        f"{100 * float(one['share'] or 0):.1f}",
        1e3 * float(one["seconds"] or 0) / steps,
        float(one["count"] or 0) / steps,
        None if flops is None else 1e-6 * float(flops),
        None if nbytes is None else 1e-6 * float(nbytes),
        one["layer"],
        one["where"],
    ]


def _arrays(memory: Mapping[str, Sequence[Mapping[str, object]]] | None) -> Table | None:
    if memory is None:
        return None
    rows = [
        [one["what"], one["kind"], one["shape"], shown(float(str(one["nbytes"]))), one["where"]]
        for one in memory["buffers"][:ARRAYS]
    ]
    header = ["array", "for", "shape", "memory", "line"]
    return Table("The largest arrays of a step, on one device", header, rows, (0, 4))


def _short(where: str) -> str:
    """A line of source by the last two parts of its file's path."""
    return "/".join(where.split("/")[-2:]) or "no line"
