"""What a compiled program does: its operations, how often each runs, and what each costs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from jdlopt.plan.hlo import Computation, Instruction, Module, Shape, inside
from jdlopt.plan.products import flops_of
from jdlopt.plan.trips import trip_count

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency", "domain",
    "get-dimension-size",
}  # fmt: skip
"""What moves nothing by itself."""
THROUGH = {"bitcast", "copy", "reshape", "convert", "transpose"}
"""What a fusion's output may go through after it was written in place."""


@dataclass(frozen=True)
class Operation:
    """Something that a program does.

    Attributes:
      name, kind: of the instruction.
      source: jax's name of where it comes from.
      times: how often it runs in one call of the program.
      flops: of its matrix products and convolutions in one go, by the type that they multiply in.
      hbm_bytes: that it reads from the device's memory and writes to it in one go.
    """

    name: str
    kind: str
    source: str
    times: float
    flops: Mapping[str, float] = field(default_factory=dict)
    hbm_bytes: int = 0


@dataclass(frozen=True)
class Work:
    """All that a program does.

    Attributes:
      operations: what costs something.
      in_loop: those inside a loop of unknown length, of one turn of it; such a loop is the one over
        steps.
      computations: how often each computation runs, those of fusions too; of one turn of a loop of
        unknown length.
      turning: the computations inside such loops.
      unread_loops: how many loops of unknown length there are.
    """

    operations: tuple[Operation, ...]
    in_loop: tuple[Operation, ...]
    computations: Mapping[str, float]
    turning: frozenset[str]
    unread_loops: int


def work_of(module: Module) -> Work:
    """Returns what one call of a program does.

    A loop's body runs as often as its condition says. A loop of a length that only the program's
    arguments know, as the one over training steps, is told apart. Of a conditional's branches the
    one that costs the most counts.
    """
    outside: list[Operation] = []
    turning: list[Operation] = []
    runs: dict[str, float] = {}
    unknown: set[str] = set()
    unread = 0
    for computation, times, is_turning in _executed(module, module[module.entry], 1.0, False):
        _count(module, computation, times, runs, unknown if is_turning else None)
        for one in computation.instructions.values():
            unread += one.opcode == "while" and trip_count(module, computation, one) is None
            flops, moved = flops_of(module, computation, one), hbm_bytes(module, computation, one)
            if any(flops.values()) or moved:
                made = Operation(one.name, one.opcode, one.source, times, flops, moved)
                (turning if is_turning else outside).append(made)
    return Work(tuple(outside), tuple(turning), runs, frozenset(unknown), unread)


def _count(
    module: Module,
    computation: Computation,
    times: float,
    runs: dict[str, float],
    unknown: set[str] | None,
) -> None:
    """Adds a computation's runs, and those of what its instructions are made of."""
    runs[computation.name] = runs.get(computation.name, 0.0) + times
    if unknown is not None:
        unknown.add(computation.name)
    for one in computation.instructions.values():
        if one.opcode not in ("while", "conditional", "call"):
            for called in inside(module, one):
                _count(module, called, times, runs, unknown)


def _executed(
    module: Module, computation: Computation, times: float, turning: bool
) -> Iterator[tuple[Computation, float, bool]]:
    """Yields the computations that run on their own, how often, and whether the loop is unknown."""
    yield computation, times, turning
    for one in computation.instructions.values():
        if one.opcode == "while":
            count = trip_count(module, computation, one)
            body = module[one.called["body"]]
            more = times if count is None else times * count
            yield from _executed(module, body, more, turning or count is None)
        elif one.opcode == "conditional" and one.branches:
            costliest = max(one.branches, key=lambda name: _weight(module, module[name]))
            yield from _executed(module, module[costliest], times, turning)
        elif one.opcode == "call" and "to_apply" in one.called:
            yield from _executed(module, module[one.called["to_apply"]], times, turning)


def _weight(module: Module, computation: Computation) -> float:
    """What a branch costs, about: FLOPs, and bytes as so many FLOPs as could be made meanwhile."""
    total = 0.0
    for found, times, _ in _executed(module, computation, 1.0, False):
        for one in found.instructions.values():
            total += times * sum(flops_of(module, found, one).values())
            total += times * 200 * hbm_bytes(module, found, one)
    return total


def hbm_bytes(module: Module, computation: Computation, one: Instruction) -> int:
    """Returns the bytes that an instruction moves between the chip and its memory.

    What lies on the chip (``S(1)``) moves none. Of what is only sliced or gathered from, the slices
    count; what is updated in place counts as the update.
    """
    opcode = one.opcode
    if opcode in FREE or opcode.endswith(("-done", "-update")):
        return 0
    if opcode == "copy-start":  # (there, here, a context)
        return sum(_bytes(shape) for shape in one.shapes[:2])
    if opcode == "slice-start":  # ((the whole), the slice, a context)
        return one.shapes[0].in_hbm * one.shapes[1].nbytes + _bytes(one.shapes[1])
    if opcode == "async-start":
        return sum(
            hbm_bytes(module, called, inner)
            for called in inside(module, one)
            for inner in called.instructions.values()
        )
    given = [
        computation.instructions[name] for name in one.operands if name in computation.instructions
    ]
    called = next(inside(module, one), None) if opcode == "fusion" else None
    if called is not None:
        taken = sum(_read(module, called, number, operand) for number, operand in enumerate(given))
        return taken + _written(called, one)
    if opcode in ("dynamic-slice", "slice", "gather"):
        rest = sum(_all_bytes(operand) for operand in given[1:])
        source = bool(given) and any(shape.in_hbm for shape in given[0].shapes)
        return rest + _all_bytes(one) + (_plain(one) if source else 0)
    if opcode == "dynamic-update-slice" and len(given) > 1:
        return 2 * _all_bytes(given[1])
    if opcode == "scatter" and len(given) > 2:
        return sum(_all_bytes(operand) for operand in given[1:]) + _all_bytes(given[-1])
    if opcode.endswith("-start"):  # a collective: its tuple holds what it takes and what it gives
        return sum(_bytes(shape) for shape in one.shapes)
    return sum(_all_bytes(operand) for operand in given) + _all_bytes(one)


def _bytes(shape: Shape) -> int:
    return shape.nbytes if shape.in_hbm else 0


def _all_bytes(one: Instruction) -> int:
    return sum(map(_bytes, one.shapes))


def _plain(one: Instruction) -> int:
    return sum(shape.nbytes for shape in one.shapes)


def _read(module: Module, called: Computation, number: int, operand: Instruction) -> int:
    """The bytes that a fusion reads of one operand."""
    whole = _all_bytes(operand)
    parameter = called.parameters.get(number)
    if parameter is None or not whole:
        return whole
    return min(whole, _used(module, called, parameter.name, whole))


def _used(module: Module, called: Computation, name: str, whole: int) -> int:
    """The bytes that a computation needs of one of its values."""
    total = 0
    for user in called.users.get(name, ()):
        is_source = user.operands[0] == name and name not in user.operands[1:]
        if user.opcode in ("dynamic-slice", "slice", "gather") and is_source:
            total += _plain(user)
        elif user.opcode in ("dynamic-update-slice", "scatter") and is_source:
            continue  # it is updated in place
        elif user.opcode == "bitcast":
            total += _used(module, called, user.name, whole)
        elif user.opcode == "fusion":
            inner = next(inside(module, user), None)
            if inner is None:
                return whole
            for number, given in enumerate(user.operands):
                parameter = inner.parameters.get(number) if given == name else None
                if parameter is not None:
                    total += _used(module, inner, parameter.name, whole)
        else:
            return whole
        if total >= whole:
            return whole
    return total


def _written(called: Computation, one: Instruction) -> int:
    """The bytes that a fusion writes: of what it updates in place, the update."""
    root = called.instructions.get(called.root)
    if root is None:
        return _all_bytes(one)
    outputs = [root]
    if root.opcode == "tuple":
        outputs = [called.instructions[name] for name in root.operands]
    if len(outputs) != len(one.shapes):
        return _all_bytes(one)
    total = 0
    for output, shape in zip(outputs, one.shapes):
        written = _bytes(shape)
        while output.opcode in THROUGH and output.operands:
            output = called.instructions[output.operands[0]]
        updates = {"dynamic-update-slice": 1, "scatter": -1}.get(output.opcode)
        if written and updates is not None and len(output.operands) > 1:
            update = called.instructions[output.operands[updates]]
            written = min(written, _plain(update))
        total += written
    return total
