"""What the compiler says of a program: its memory, and what it does, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax

from jdlopt.plan.collectives import Collective, collectives_of, totals
from jdlopt.plan.hlo import parse
from jdlopt.plan.lowering import DATA, OTHER, ToCompile
from jdlopt.plan.operations import Operation, work_of
from jdlopt.plan.record import Costly, Program, Sent
from jdlopt.plan.roofline import Seconds, seconds_of
from jdlopt.plan.topology import Topology, link_share, slices_of
from jdlopt.train import memory
from jdlopt.train.compiling import compile_options
from jdlopt.train.program import DISPATCH_SECONDS

TEMPORARIES = "activations and temporaries"
PADDING = "padding of arguments"
MOST_COSTLY = 12
"""Operations that are told one by one."""


def program_of(
    made: ToCompile, devices: Sequence[jax.Device], axes: dict[str, int], topology: Topology
) -> Program:
    """Compiles a program and returns what it takes and does on a chip.

    Args:
      made: the program.
      devices: of the mesh, in its order.
      axes: the sizes of the mesh's axes.
      topology: the machine.
    """
    start = time.perf_counter()
    limit = topology.chip.hbm_bytes
    try:
        compiled = made.lowered.compile(compile_options(platform=devices[0].platform))
    except jax.errors.JaxRuntimeError as error:
        found = memory.refused(error, sum(made.arguments.values()))
        if found is None:
            raise
        needed, _ = found
        said = next(iter(str(error).strip().splitlines()), "")
        return Program(
            made.name, made.steps, False, _kinds(made, needed, sum(made.arguments.values())),
            needed, made.beside, made.examples,
            compile_seconds=time.perf_counter() - start, said=said,
        )  # fmt: skip
    took = time.perf_counter() - start
    analysis = compiled.memory_analysis()
    peak = memory.peak_bytes(compiled)
    kinds = _kinds(made, peak, 0 if analysis is None else analysis.argument_size_in_bytes)
    module = parse(compiled.as_text() or "")
    work = work_of(module)
    sent = collectives_of(module, work, axes)

    def rolled(steps: int) -> tuple[list[tuple[Operation, float]], list[tuple[Collective, float]]]:
        """Operations and collectives of one step, those outside the loop shared by its steps."""
        inside = [(one, one.times) for one in work.in_loop]
        outside = [(one, one.times / steps) for one in work.operations]
        gone = [(one, one.times if one.turning else one.times / steps) for one in sent]
        return inside + outside, gone

    def roofline(steps: int) -> Seconds:
        return seconds_of(
            *rolled(steps),
            topology.chip,
            lambda group: link_share(topology, devices, group),
            lambda group: slices_of(devices, group),
        )

    steps = made.steps if work.in_loop else 1
    if steps > 1:  # as many in a dispatch as `fit` would take
        steps = int(min(steps, max(1, DISPATCH_SECONDS / max(roofline(steps).low, 1e-9))))
    operations, gone = rolled(steps)
    return Program(
        made.name,
        steps,
        peak + made.beside <= limit,
        kinds,
        peak,
        made.beside,
        made.examples,
        flops=sum(times * sum(one.flops.values()) for one, times in operations),
        hbm_bytes=sum(times * one.hbm_bytes for one, times in operations),
        collectives=tuple(
            Sent(kind, axes, count, nbytes)
            for (kind, axes), (count, nbytes) in sorted(totals(gone).items())
        ),
        seconds=roofline(steps),
        costliest=_costliest(operations, topology),
        unread_loops=max(0, work.unread_loops - (made.steps > 1)),
        compile_seconds=took,
    )


def _kinds(made: ToCompile, peak: int, arguments: int) -> dict[str, int]:
    """The bytes at a program's peak, by what they are; nothing of what is 0."""
    known = sum(made.arguments.values())
    found = {
        **{name: made.arguments[name] for name in made.arguments if name not in (DATA, OTHER)},
        DATA: made.arguments[DATA],
        OTHER: made.arguments[OTHER],
        PADDING: max(0, arguments - known),
        TEMPORARIES: max(0, peak - max(arguments, known)),
    }
    return {name: size for name, size in found.items() if size}


def _costliest(
    operations: Sequence[tuple[Operation, float]], topology: Topology
) -> tuple[Costly, ...]:
    chip = topology.chip
    found = []
    for one, times in operations:
        products = sum(count / chip.peak(kind) for kind, count in one.flops.items())
        seconds = times * max(products, one.hbm_bytes / chip.hbm_bandwidth)
        flops = times * sum(one.flops.values())
        moved = times * one.hbm_bytes
        found.append(Costly(one.name, one.kind, one.source, times, flops, moved, seconds))
    return tuple(sorted(found, key=lambda one: -one.seconds)[:MOST_COSTLY])
