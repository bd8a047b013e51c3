"""The verb ``plan``: what a training takes on machines that are not here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from jdlopt.cli import plan_search
from jdlopt.cli.show import DONE, WRONG_INPUT, console, load, print_json, print_path
from jdlopt.cli.verbs import PlanFlags
from jdlopt.errors import escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from jdlopt.plan.record import Plan, Program, Range


def plan(flags: PlanFlags) -> int:
    """Compiles a config's programs for a topology, and shows what they take and do."""
    config = load(flags)
    from jdlopt.plan.plan import plan as make
    from jdlopt.plan.topology import parse

    if flags.search:
        return plan_search.find(
            config, flags.topology, flags.slices, flags.same_batch, flags.out, flags.json
        )
    if not parse(flags.topology, flags.slices).chip.is_tpu:
        return plan_search.show_estimate(config, flags.topology, flags.slices, flags.json)

    out = console()
    waiting = out.status(f"compiling for {flags.topology} …") if out.is_terminal else nullcontext()
    with waiting:
        found = make(
            config,
            flags.topology,
            slices=flags.slices,
            price=flags.price,
            workdir=flags.workdir,
        )
    page = None
    if flags.workdir is not None:
        from jdlopt.report.plan import write_page

        page = write_page(Path(flags.workdir))
    if flags.json:
        print_json(found.to_dict())
    else:
        _print(found, out)
        if flags.workdir is not None and page is not None:
            from jdlopt.plan.record import PLAN

            print_path(out, page, "this plan as a page")
            print_path(out, Path(flags.workdir) / PLAN, "the same, for scripts")
    if not found.fits:
        out.print(f"jdlopt: {found.message}", soft_wrap=True, style="red")
    return DONE if found.fits else WRONG_INPUT


def _print(found: Plan, out: Console) -> None:
    from jdlopt.train.memory import shown

    slices = f" × {found.slices} slices" if found.slices > 1 else ""
    mesh = ", ".join(f"{name} {size}" for name, size in found.mesh.items() if size > 1) or "none"
    programs = [one for one in (found.training, found.evaluation) if one is not None]
    chips = "1 chip" if found.chips == 1 else f"{found.chips:,} chips"
    out.print(_memory(found, programs))
    out.print(_work(programs))
    if any(one.collectives for one in programs):
        out.print(_sent(programs))
    if found.training.costliest:
        out.print(_costliest(found.training))
    out.print(
        f"{found.topology}{slices}: {chips} of {shown(found.limit)}; mesh {mesh}; "
        f"batch {found.batch_size:,}; {found.parameters:,} parameters",
        soft_wrap=True,
    )
    if found.step_seconds is None or found.mfu is None or found.examples_per_second is None:
        return
    bound = found.training.seconds.bound if found.training.seconds else ""
    out.print(
        f"a step: {_between(found.step_seconds, seconds)}, bound by {bound}; "
        f"{_between(found.examples_per_second, '{:,.0f}'.format)} examples/s; "
        f"MFU {_between(found.mfu, '{:.1%}'.format)}",
        soft_wrap=True,
    )
    if found.hours is not None and found.chip_hours is not None:
        cost = "" if found.cost is None else f"; ${_between(found.cost, '{:,.2f}'.format)}"
        out.print(
            f"all {found.total_steps:,} steps: {_between(found.hours, '{:.3g}'.format)} hours, "
            f"{_between(found.chip_hours, '{:,.3g}'.format)} chip-hours{cost}",
            soft_wrap=True,
        )


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _memory(found: Plan, programs: list[Program]) -> Table:
    from jdlopt.train.memory import shown

    table = _table("memory of a chip at the peak", ("what",), tuple(one.name for one in programs))
    for kind in dict.fromkeys(kind for one in programs for kind in one.memory):
        sizes = (one.memory.get(kind) for one in programs)
        table.add_row(kind, *("–" if size is None else shown(size) for size in sizes))
    if any(one.beside for one in programs):
        table.add_row("what lies there beside", *(shown(one.beside) for one in programs))
    totals = [one.peak + one.beside for one in programs]
    table.add_row("together", *map(shown, totals), style="bold")
    shares = (f"{total / found.limit:.1%}" for total in totals)
    table.add_row(f"of {shown(found.limit)}", *shares)
    return table


def _work(programs: list[Program]) -> Table:
    from jdlopt.train.memory import shown

    table = _table("one step on a chip", ("what",), tuple(one.name for one in programs))
    rows = (
        ("products and convolutions", lambda one: f"{one.flops / 1e9:,.3g} GFLOP"),
        ("to and from memory", lambda one: shown(one.hbm_bytes)),
        ("at least, for arithmetic", lambda one: seconds(one.seconds.compute)),
        ("at least, for memory (HBM)", lambda one: seconds(one.seconds.hbm)),
        ("at least, for links (ICI)", lambda one: seconds(one.seconds.ici)),
        ("at least, for the network (DCN)", lambda one: seconds(one.seconds.dcn)),
        ("bound by", lambda one: one.seconds.bound),
    )
    for name, told in rows:
        table.add_row(name, *("–" if one.seconds is None else told(one) for one in programs))
    return table


def _sent(programs: list[Program]) -> Table:
    from jdlopt.train.memory import shown

    table = _table("collectives of one step", ("program", "kind", "mesh axes"), ("count", "bytes"))
    for program in programs:
        for one in program.collectives:
            axes = " × ".join(one.axes) or "?"
            table.add_row(program.name, one.kind, axes, f"{one.count:.4g}", shown(one.nbytes))
    return table


def _costliest(program: Program) -> Table:
    from jdlopt.train.memory import shown

    table = _table(
        "operations of a training step that take the most time",
        ("operation", "from"),
        ("times", "GFLOP", "memory", "at least"),
    )
    for one in program.costliest[:6]:
        table.add_row(
            escaped(one.name),
            escaped("/".join(one.source.split("/")[-3:])),
            f"{one.times:.4g}",
            f"{one.flops / 1e9:,.3g}",
            shown(one.hbm_bytes),
            seconds(one.seconds),
        )
    return table


def _between(found: Range, told: Callable[[float], str]) -> str:
    low, high = told(found.low), told(found.high)
    return low if low == high else f"{low} to {high}"


def seconds(value: float) -> str:
    """Returns a time as people read it.

    Example:
      >>> seconds(0.00213), seconds(12.5), seconds(0)
      ('2.13 ms', '12.5 s', '0')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns" if value else "0"
