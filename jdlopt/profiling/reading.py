"""What a trace, the programs that ran and their memory come to, as rows for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from jdlopt.profiling import sources, trace
from jdlopt.profiling.record import Buffer, Line, Memory, Operation
from jdlopt.train.state import TrainState

SHOWN = 200
"""Operations that are told one by one."""
BUFFERS = 20
"""Arrays that are told of the state, and of what a step makes meanwhile."""


UNKNOWN = sources.Program("", {}, {}, {}, {})
"""A program whose text is not known, such as one that jax runs by itself."""


def holds_others(programs: Mapping[str, sources.Program], program: str, operation: str) -> bool:
    """Says whether an operation of one of some programs consists of others."""
    return sources.holds_others(programs.get(program, UNKNOWN), operation)


def operations(found: trace.Trace, programs: Mapping[str, sources.Program]) -> list[Operation]:
    """Every operation that ran, the longest first."""
    totals = trace.totals(found.operations.values())
    whole = sum(total.seconds for total in totals.values()) or 1.0
    made = []
    for (name, operation), total in totals.items():
        program = programs.get(name, UNKNOWN)
        here = sources.origin(program, operation)
        made.append(
            Operation(
                name=operation,
                program=name,
                kind=sources.kind(program, operation),
                where=_where(program, operation),
                layer=sources.layer(here.source) if here else "",
                seconds=total.seconds,
                share=total.seconds / whole,
                count=total.times,
                flops=total.flops or sources.flops(program, operation),
                nbytes=total.nbytes or sources.nbytes(program, operation),
            )
        )
    return sorted(made, key=lambda one: -one.seconds)


def shown(operations: list[Operation]) -> list[Operation]:
    """The first operations, and one row for all others."""
    first, others = operations[:SHOWN], operations[SHOWN:]
    if not others:
        return first
    seconds, share = (sum(values) for values in zip(*((o.seconds, o.share) for o in others)))
    count = sum(one.count for one in others)
    name = f"{len(others):,} others"
    return [*first, Operation(name, "", "", "", "", seconds, share, count, None, None)]


def lines(operations: list[Operation]) -> list[Line]:
    """The lines of source that operations come from, by their share."""
    shares: dict[str, float] = defaultdict(float)
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for one in operations:
        shares[one.where] += one.share
        kinds[one.where][one.kind] = None
    ordered = sorted(shares, key=lambda where: -shares[where])
    return [Line(where, shares[where], list(kinds[where])[:4]) for where in ordered[:SHOWN]]


PACKAGE = Path(__file__).parents[1]
LIBRARIES = tuple(f"{folder}/" for folder in ("site-packages", "dist-packages", "lib/python3"))


GENERIC = tuple(f"{PACKAGE}/{place}" for place in ("kernels/", "models/layers.py"))
"""How a layer is computed, whichever it is: the line that asks for it tells more."""


def _is_own(file: str) -> bool:
    """Whether a file is the user's or jdlopt's, and no library's."""
    if file.startswith(f"{PACKAGE}/"):
        return not file.startswith(GENERIC)
    return not any(part in file for part in LIBRARIES)


def _where(program: sources.Program, operation: str) -> str:
    file, line = sources.where(program, operation, _is_own)
    if not file:
        return ""
    for root in (PACKAGE.parent, Path.cwd()):
        if Path(file).is_relative_to(root):
            file = str(Path(file).relative_to(root))
    return f"{file}:{line}"


def held(state: TrainState) -> list[Buffer]:
    """The arrays of a state, by what they are for."""
    kinds = {"params": "parameters", "opt_state": "optimizer"}
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        shard = leaf.addressable_shards[0].data
        field = path[0].name
        shape = f"{leaf.dtype}[{','.join(map(str, shard.shape))}]"
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.append(Buffer(name, kinds.get(field, "state"), shape, "", shard.nbytes))
    return sorted(found, key=lambda one: -one.nbytes)[:BUFFERS]


def memory(
    compiled: jax.stages.Compiled,
    program: sources.Program,
    held: Sequence[Buffer],
    mesh: jax.sharding.Mesh,
) -> Memory | None:
    """What a program that trains takes of a device; None where the compiler does not say.

    Args:
      compiled, program: it, and its text as it was read.
      held: the arrays of the state.
      mesh: the devices.
    """
    found = compiled.memory_analysis()
    if found is None:
        return None
    made = [
        Buffer(
            one.name,
            "temporary",
            " ".join(f"{s.dtype}[{','.join(map(str, s.dims))}]" for s in one.shapes),
            _where(program, one.name),
            sources.made_bytes(one),
        )
        for one in sources.largest(program, BUFFERS)
    ]
    peak = getattr(found, "peak_memory_in_bytes", 0)  # a CPU's leaves the temporaries out
    stats = mesh.local_devices[0].memory_stats() or {}
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        in_place=found.alias_size_in_bytes,
        peak=peak if peak >= found.temp_size_in_bytes else None,
        in_use_at_most=stats.get("peak_bytes_in_use"),
        buffers=sorted([*held, *made], key=lambda one: -one.nbytes),
    )
