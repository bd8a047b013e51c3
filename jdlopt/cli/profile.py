"""The verb ``profile``: where the time of training steps goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt.cli.show import (
    DONE,
    check_run,
    config_at,
    console,
    place_of,
    print_json,
    print_path,
    print_rows,
    start,
)
from jdlopt.cli.verbs import ProfileFlags
from jdlopt.errors import escaped

if TYPE_CHECKING:
    from jdlopt.profiling.record import Memory, Profile

ROWS, BUFFERS, LEAST = 20, 6, 0.005
"""Operations and arrays that are shown at most; the share from which an operation is."""
WIDE = 130
"""Columns of a terminal from which operations' names are shown, as the trace has them."""


def profile(flags: ProfileFlags) -> int:
    """Traces steps of a config, or of a run, and shows what their time went to."""
    place = place_of(flags)
    is_run = Path(place).is_dir() and not flags.overrides
    if is_run:
        check_run("RUN" if flags.run else "--config", place)
    what = place if is_run else config_at(place, flags.overrides, flags.allow_code)
    speaks = start()
    from jdlopt.profiling.profile import profile as traced

    found = traced(what, flags.workdir, steps=flags.steps, allow_code=flags.allow_code)
    folder = flags.workdir or (place if is_run else None)
    if speaks and flags.json:
        print_json({**found.to_dict(), "workdir": folder})
    elif speaks:
        _print(found, None if folder is None else Path(folder))
    return DONE


def _print(found: Profile, folder: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from jdlopt.profiling.record import PROFILE, SHARES, TRACE

    out, each = console(), found.step_seconds
    devices = f"{found.devices} × " if found.devices > 1 else ""
    first = f", of {found.processes} processes the first" if found.processes > 1 else ""
    at_once = found.steps_per_dispatch
    way = "one by one" if found.mode == "step" else f"in a loop of up to {at_once:,}"
    out.print(
        Text.assemble((f"{found.model} on {found.source}", "bold")),
        f"{found.steps:,} steps of {found.batch_size:,} examples on {devices}{found.device}, "
        f"dispatched {way}{first}: {_time(each)} a step, {found.batch_size / each:,.0f} examples/s"
        "\n"
        f"before the first step: {found.build_seconds:.1f} s for data, model and timing, "
        f"{found.compile_seconds:.1f} s compiling",
        sep="\n",
        soft_wrap=True,
    )
    shares = [
        {"the time": words, "share": f"{found.shares.get(kind, 0.0):.1%}",
         "a step": _time(found.shares.get(kind, 0.0) * each)}
        for kind, words in SHARES.items()
    ]  # fmt: skip
    print_rows(shares, "where the time of a step goes")
    table = Table(title="operations")
    wide = out.width >= WIDE
    for column in ("operation", *(["name"] if wide else []), "layer", "line"):
        table.add_column(column, overflow="fold")
    for column in ("share", "a step", "times", "FLOPs"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found.operations[:ROWS]:
        if one.share >= LEAST:
            words = one.kind, *([one.name] if wide else []), one.layer, one.where
            table.add_row(
                *map(escaped, words),
                f"{one.share:.1%}",
                _time(one.seconds / found.steps),
                f"{one.count / found.steps:.3g}",
                _count(one.flops * one.count / found.steps) if one.flops else "",
            )
    out.print(table)
    lines = [
        {"line of source": one.where or "(no line)", "share": f"{one.share:.1%}",
         "operations": ", ".join(one.kinds)}
        for one in found.lines[:ROWS]
        if one.share >= LEAST
    ]  # fmt: skip
    print_rows(lines, "operations by the line that they come from")
    if found.memory is not None:
        _print_memory(found.memory)
    if folder is None:
        out.print("nothing is kept: name --workdir=DIR to have the trace", style="dim")
        return
    traces = sorted((folder / TRACE).rglob("perfetto_trace.json.gz"))
    print_path(out, folder / PROFILE, "these numbers; `jdlopt report` shows them")
    for path in traces:
        print_path(out, path, "the trace: open it at https://ui.perfetto.dev")
    print_path(out, folder / TRACE, f"for XProf (jdlopt[xprof]): xprof --logdir={folder / TRACE}")
    for other in range(1, found.processes):
        print_path(out, folder / f"{TRACE}-{other}", f"the trace of process {other}")


def _print_memory(found: Memory) -> None:
    from jdlopt.train.memory import shown

    peak = "" if found.peak is None else f"{shown(found.peak)} at its peak: "
    in_use = "" if found.in_use_at_most is None else (
        f"; the device had {shown(found.in_use_at_most)} in use at most"
    )  # fmt: skip
    told = (
        f"{shown(found.arguments)} arguments, {shown(found.temporaries)} temporary, "
        f"{shown(found.outputs)} outputs, of them {shown(found.in_place)} in place{in_use}"
    )
    rows = [
        {"array": one.what, "for": one.kind, "shape": one.shape, "memory": shown(one.nbytes),
         "line": one.where}
        for one in found.buffers[:BUFFERS]
    ]  # fmt: skip
    print_rows(rows, "the largest arrays of a step")
    console().print(f"memory of a step: {peak}{told}", soft_wrap=True)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"


def _count(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
