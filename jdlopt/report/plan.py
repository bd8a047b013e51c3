"""The page of ``plan``: memory and time of a training on machines that need not be here."""

from __future__ import annotations

from pathlib import Path

from jdlopt.plan.record import PLAN, Plan, Program, Range
from jdlopt.report.figures import BAD, COLOURS, GREY, LEGEND, scale
from jdlopt.report.page import Figure, Spec, Table, number, render
from jdlopt.report.records import as_written, read
from jdlopt.report.saving import save
from jdlopt.train.memory import shown

PAGE = "plan.html"
BESIDE = "what lies there beside"
GIB = 2**30


def write_page(workdir: Path) -> Path:
    """Writes ``plan.html`` of a plan's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    path = workdir / PLAN
    record = read(path, {"topology": str, "training": dict, "mesh": dict, "fits": bool})
    with as_written(path):
        text = _page(Plan.from_dict(record))
    return save(workdir, text, PAGE)


def _page(plan: Plan) -> str:
    programs = [one for one in (plan.training, plan.evaluation) if one is not None]
    axes = ", ".join(f"{name} {size}" for name, size in plan.mesh.items() if size > 1)
    slices = f", {plan.slices} slices" if plan.slices > 1 else ""
    bound = plan.training.seconds.bound if plan.training.seconds else ""
    facts = [
        ("fits", "yes" if plan.fits else "no", f"{shown(plan.limit)} on a chip"),
        ("batch", plan.batch_size),
        ("parameters", plan.parameters),
        *_ranged("ms a step", plan.step_seconds, 1e3, f"bound by {bound}"),
        *_ranged("examples/s", plan.examples_per_second),
        *_ranged("MFU, %", plan.mfu, 100),
        *_ranged("chip-hours", plan.chip_hours, 1, f"{plan.total_steps:,} steps"),
        *_ranged("dollars", plan.cost, 1, f"{number(plan.price)} a chip-hour"),
    ]
    timed = [one for one in programs if one.seconds is not None]
    return render(
        "plan",
        title=f"Plan for {plan.topology}",
        lead=f"{plan.chips:,} chips{slices}; mesh: {axes or 'one chip'}. Compiled, not run.",
        footer=f"jax {plan.versions.get('jax', '')}, libtpu {plan.versions.get('libtpu', '')}.",
        facts=facts,
        message=plan.message,
        memory=_memory(programs, plan.limit),
        memory_table=_memory_table(programs, plan.limit),
        time=_time(timed) if timed else None,
        time_table=_time_table(timed),
        collectives=_collectives(programs),
        operations=[_operations(one) for one in timed if one.costliest],
        unread=sum(one.unread_loops for one in programs),
    )


def _ranged(
    name: str, found: Range | None, factor: float = 1.0, small: str = ""
) -> list[tuple[str, str, str]]:
    if found is None:
        return []
    low, high = number(found.low * factor), number(found.high * factor)
    return [(name, low if low == high else f"{low} to {high}", small)]


def _stacked(
    name: str, caption: str, rows: list[str], parts: dict[str, list[float]], what: str
) -> Figure:
    """Bars of parts, one on the other, a bar a row."""
    kept = {part: values for part, values in parts.items() if any(values)}
    data: list[Spec] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": rows,
            "x": values,
            "marker": _marker(index),
        }
        for index, (part, values) in enumerate(kept.items())
    ]
    said = "; ".join(
        f"{row}: " + ", ".join(f"{part} {number(values[place])}" for part, values in kept.items())
        for place, row in enumerate(rows)
    )
    layout: Spec = {
        "barmode": "stack",
        "showlegend": True,
        "legend": LEGEND,
        "xaxis": scale(what),
        "yaxis": scale("", autorange="reversed"),
    }
    return Figure(name, caption, f"{caption}. {said}.", data, layout, 180 + 60 * len(rows))


def _marker(index: int) -> Spec:
    """A colour of its own for each part; those beyond the colours that there are have stripes."""
    colours = (*COLOURS, GREY)
    round_, place = divmod(index, len(colours))
    return {"color": colours[place], **({"pattern": {"shape": "/"}} if round_ else {})}


def _memory(programs: list[Program], limit: int) -> Figure:
    kinds = dict.fromkeys(kind for one in programs for kind in one.memory)
    parts = {kind: [one.memory.get(kind, 0) / GIB for one in programs] for kind in kinds}
    parts[BESIDE] = [one.beside / GIB for one in programs]
    most = max(one.peak + one.beside for one in programs)
    near = most * 20 > limit  # else it would press the bars to the axis
    caption = "Memory of a chip at the peak of each program"
    caption += "; the dotted line is what there is" if near else ""
    found = _stacked("memory-parts", caption, [one.name for one in programs], parts, "GiB")
    if near:
        found.layout["shapes"] = [
            {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": limit / GIB,
             "x1": limit / GIB, "line": {"color": BAD, "dash": "dot", "width": 2}}
        ]  # fmt: skip
    return found


def _memory_table(programs: list[Program], limit: int) -> Table:
    kinds = dict.fromkeys(kind for one in programs for kind in one.memory)
    rows: list[list[object]] = [
        [kind, *(shown(one.memory[kind]) if kind in one.memory else "–" for one in programs)]
        for kind in kinds
    ]
    rows.append([BESIDE, *(shown(one.beside) for one in programs)])
    totals = [one.peak + one.beside for one in programs]
    rows.append(["together", *((shown(one), f"{one / limit:.1%} of a chip's") for one in totals)])
    return Table("Bytes on a chip", ("what", *(one.name for one in programs)), rows)


def _time(programs: list[Program]) -> Figure:
    seconds = [one.seconds for one in programs if one.seconds is not None]
    parts = {
        "bound by arithmetic": [1e3 * (one.operations - one.at_memory) for one in seconds],
        "bound by memory (HBM)": [1e3 * one.at_memory for one in seconds],
        "links (ICI)": [1e3 * one.ici for one in seconds],
        "network (DCN)": [1e3 * one.dcn for one in seconds],
    }
    caption = "Time of a step, its parts one after the other, each at its peak"
    return _stacked("time-parts", caption, [one.name for one in programs], parts, "ms")


def _time_table(programs: list[Program]) -> Table:
    rows: list[list[object]] = []
    for one in programs:
        if one.seconds is not None:
            found = one.seconds
            times = [1e3 * part for part in (found.compute, found.hbm, found.ici, found.dcn)]
            spread = f"{number(1e3 * found.low)} to {number(1e3 * found.high)}"
            flops = one.flops / 1e9
            rows.append([one.name, flops, shown(one.hbm_bytes), *times, (spread, found.bound)])
    header = ("program", "GFLOP", "memory", "ms of arithmetic", "ms of memory", "ms of links",
              "ms of network", "ms in all, bound by")  # fmt: skip
    return Table("A step on a chip", header, rows)


def _collectives(programs: list[Program]) -> Table | None:
    rows = [
        [one.kind, program.name, " × ".join(one.axes) or "?", one.count, shown(one.nbytes)]
        for program in programs
        for one in program.collectives
    ]
    header = ("kind", "program", "mesh axes", "count", "bytes on a chip")
    return Table("Collectives of a step", header, rows) if rows else None


def _operations(program: Program) -> Table:
    rows = [
        [
            one.name,
            one.source or "–",
            one.times,
            one.flops / 1e9,
            shown(one.hbm_bytes),
            1e3 * one.seconds,
        ]
        for one in program.costliest
    ]
    header = ("operation", "from", "times", "GFLOP", "memory", "ms at least")
    return Table(f"Costliest operations of {program.name}", header, rows, wide=(1,))
