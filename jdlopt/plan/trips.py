"""How often a loop of a compiled program runs, read from its condition. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from jdlopt.plan.hlo import Computation, Instruction, Module, inside

KNOWN = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
"""What XLA's CPU and GPU compilers write beside a loop; the one for TPUs doesn't."""
SAME = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done")
"""What gives the number that it takes."""


class Constant(NamedTuple):
    """A number that the program holds."""

    value: int


class Carried(NamedTuple):
    """A part of what a loop carries from turn to turn, by its place."""

    place: int


class Argument(NamedTuple):
    """A parameter of a computation that is called, by its number."""

    number: int


Value = Constant | Carried | Argument | None


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """Returns how often a loop's body runs; None where only the program's arguments know.

    A loop counts from where it begins, by what its body adds, to a limit in its condition; where it
    begins and what is added are taken for 0 and 1 if they can't be read.

    Args:
      module: the program.
      computation: that the loop stands in.
      loop: the ``while``.
    """
    known = KNOWN.search(loop.attributes)
    if known:
        return int(known[1])
    condition = module[loop.called["condition"]]
    for left, right, direction in _comparisons(module, condition):
        if isinstance(left, Constant) and isinstance(right, Carried):
            left, right = right, left
            direction = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE"}.get(direction, direction)
        if not isinstance(left, Carried):
            continue
        limit = right
        if isinstance(right, Carried):
            limit = _begins(module, computation, loop, right.place)
        if not isinstance(limit, Constant):
            continue
        begins = _begins(module, computation, loop, left.place)
        first = begins.value if isinstance(begins, Constant) else 0
        step = _added(module, module[loop.called["body"]], left.place)
        return _turns(first, limit.value, step, direction)
    return None


def _turns(first: int, limit: int, step: int, direction: str) -> int | None:
    if direction in ("LE", "GE"):
        limit += 1 if direction == "LE" else -1
    away = limit - first
    if direction in ("GT", "GE"):
        away, step = -away, -step
    if direction == "NE" and away * step < 0:
        return None
    return max(0, -(-away // step)) if step > 0 else None


def _comparisons(module: Module, condition: Computation) -> Iterator[tuple[Value, Value, str]]:
    """Yields both sides of every comparison that a condition makes, and its direction."""
    for one in condition.instructions.values():
        if one.opcode == "compare":
            left, right = (_value(module, condition, name) for name in one.operands[:2])
            yield left, right, one.attribute("direction") or ""
        for called in inside(module, one):
            for left, right, direction in _comparisons(module, called):
                yield (
                    _given(module, condition, one, left),
                    _given(module, condition, one, right),
                    direction,
                )


def _given(module: Module, computation: Computation, caller: Instruction, value: Value) -> Value:
    """What an argument of a computation is where it is called."""
    if isinstance(value, Argument) and value.number < len(caller.operands):
        return _value(module, computation, caller.operands[value.number])
    return value


def _value(module: Module, computation: Computation, name: str) -> Value:
    """What a value of a computation is, as far as it can be told."""
    one = computation.instructions.get(name)
    if one is None:
        return None
    if one.opcode == "constant":
        number = re.fullmatch(r"-?\d+", one.literal.strip())
        return Constant(int(number[0])) if number else None
    if one.opcode == "parameter":
        return Argument(int(one.literal))
    if one.opcode == "get-tuple-element":
        source = computation.instructions.get(one.operands[0])
        place = int(one.attribute("index") or 0)
        if source is not None and source.opcode == "parameter":
            return Carried(place)
        if source is not None and source.opcode == "tuple":
            return _value(module, computation, source.operands[place])
        return None
    if one.opcode in SAME:
        return _value(module, computation, one.operands[0])
    for called in inside(module, one):
        return _given(module, computation, one, _value(module, called, called.root))
    return None


def _begins(module: Module, computation: Computation, loop: Instruction, place: int) -> Value:
    """What a loop carries at a place before its first turn."""
    before = computation.instructions.get(loop.operands[0])
    while before is not None and before.opcode in SAME:
        before = computation.instructions.get(before.operands[0])
    if before is None or before.opcode != "tuple" or place >= len(before.operands):
        return None
    return _value(module, computation, before.operands[place])


def _added(module: Module, body: Computation, place: int) -> int:
    """What a loop's body adds to what it carries at a place; 1 if it can't be read."""
    root = body.instructions[body.root]
    if root.opcode != "tuple" or place >= len(root.operands):
        return 1
    return _increment(module, body, root.operands[place]) or 1


def _increment(module: Module, computation: Computation, name: str) -> int | None:
    one = computation.instructions.get(name)
    while one is not None and one.opcode in SAME:
        one = computation.instructions.get(one.operands[0])
    if one is None:
        return None
    if one.opcode in ("add", "subtract"):
        values = [_value(module, computation, operand) for operand in one.operands]
        numbers = [value.value for value in values if isinstance(value, Constant)]
        sign = -1 if one.opcode == "subtract" else 1
        return sign * numbers[0] if len(numbers) == 1 else None
    for called in inside(module, one):
        return _increment(module, called, called.root)
    return None
