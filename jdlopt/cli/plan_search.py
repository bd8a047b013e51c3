"""What ``plan --search`` shows, and what ``plan`` shows of machines that are not compiled for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt.cli.show import DONE, WRONG_INPUT, console, print_json, print_path

if TYPE_CHECKING:
    from jdlopt.config import AnyConfig
    from jdlopt.plan.analytic import Estimate
    from jdlopt.plan.search import Found

SHOWN = 5
"""Estimates that are shown beside what was compiled."""
ESTIMATED = "estimated, not compiled: how far off that may be, docs/scale.md says"


def find(
    config: AnyConfig, topology: str, slices: int, same_batch: bool, out: str | None, as_json: bool
) -> int:
    """Searches for a layout, and shows it as keys of a config."""
    from jdlopt.plan.finding import find as search

    found = search(config, topology, slices=slices, same_batch=same_batch)
    if out is not None:
        found.write(Path(out))
    if as_json:
        print_json(_record(found))
        return DONE
    _print(found)
    if out is not None:
        print_path(console(), Path(out), "the config with them, for --config")
    return DONE


def show_estimate(config: AnyConfig, topology: str, slices: int, as_json: bool) -> int:
    """Shows what a config takes on a machine, by the estimate alone."""
    from jdlopt.plan.finding import estimate_of
    from jdlopt.train.memory import shown

    found = estimate_of(config, topology, slices=slices)
    if as_json:
        print_json({"compiled": False, **found.to_dict()})
        return DONE if found.fits else WRONG_INPUT
    out, memory = console(), found.memory
    parts = ("parameters", "optimizer", "others", "gradients", "activations", "gathered", "data")
    held = ", ".join(
        f"{shown(getattr(memory, part))} {part}" for part in parts if getattr(memory, part)
    )
    out.print(f"{ESTIMATED}", soft_wrap=True)
    out.print(
        f"memory a chip: {shown(memory.total)} of {shown(found.limit)}: {held}", soft_wrap=True
    )
    for one in found.collectives:
        out.print(
            f"{one.kind} over {one.axis}: {shown(one.nbytes)} of {one.what} a step", soft_wrap=True
        )
    out.print(_paces(found), soft_wrap=True)
    if not found.fits:
        out.print("jdlopt: it doesn't fit. Try --search, or more chips.", style="red")
    return DONE if found.fits else WRONG_INPUT


def _paces(found: Estimate) -> str:
    seconds = found.seconds
    return (
        f"a step: {seconds.expected:.4g} s ({seconds.low:.4g} to {seconds.high:.4g}), bound by "
        f"{found.bound}; {found.examples_per_second:,.0f} examples/s; MFU {found.mfu:.1%}"
    )


def _record(found: Found) -> dict[str, object]:
    return {
        "lines": list(found.lines),
        "config": found.config,
        "compiled": [
            {
                **one.candidate.assignments(),
                "fits": one.verdict.fits,
                "peak": one.verdict.peak,
                "seconds": one.verdict.seconds if one.verdict.fits else None,
                "message": one.verdict.said,
            }
            for one in found.compiled
            if one.verdict is not None
        ],
        "estimated": len(found.ranked),
        "best": {**found.best.candidate.assignments(), "estimate": found.best.estimate.to_dict()},
    }


def _print(found: Found) -> None:
    from rich.table import Table

    from jdlopt.train.memory import shown

    table = Table(title=f"{len(found.ranked):,} layouts estimated")
    for column in ("mesh", "batch", "other keys"):
        table.add_column(column, overflow="fold")
    for column in ("memory", "a step", "examples/s"):
        table.add_column(column, justify="right")
    for one in found.compiled or found.ranked[:SHOWN]:
        keys = {**one.candidate.model, "accumulate": one.candidate.accumulate}
        verdict = one.verdict
        memory = one.estimate.memory.total if verdict is None else verdict.peak
        seconds = one.estimate.seconds.expected if verdict is None else verdict.seconds
        fits = one.estimate.fits if verdict is None else verdict.fits
        table.add_row(
            " × ".join(f"{axis} {size}" for axis, size in one.candidate.mesh.items() if size > 1)
            or "1 chip",
            f"{one.candidate.batch_size:,}",
            ", ".join(f"{key} {value}" for key, value in keys.items()),
            shown(memory),
            f"{seconds:.4g} s" if fits else "doesn't fit",
            f"{one.candidate.batch_size / seconds:,.0f}" if fits else "",
        )
    out = console()
    out.print(table)
    if not found.compiled:
        out.print(ESTIMATED, soft_wrap=True)
    lines = " ".join(f"--config.{line}" for line in found.lines)
    out.print(lines or "the config's own layout is the best", soft_wrap=True)
