"""What a compiled program's text says of its operations: kind, source line, arithmetic, bytes.

The text is that of `jax.stages.Compiled.as_text`: XLA's optimised HLO. Of it are read the
instructions with their shapes and operands, and the tables of Python stack frames that they refer
to. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jdlopt.plan import hlo

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"}
"""Operations that make no array of their own while a program runs, or none worth a name."""

_ROW = re.compile(r"\s*(\d+) (.*)")


class Frame(NamedTuple):
    """A Python frame in which an operation was traced: its file and line, and its caller's."""

    file: str
    line: int
    parent: int


class Program(NamedTuple):
    """A compiled program as its text says.

    Attributes:
      name: such as ``jit_one_step``.
      instructions: by name.
      computations: the names of the instructions in each; the last of each is its result.
      frames: Python frames by number.
      taken_by: the names of the instructions that take the result of each.
    """

    name: str
    instructions: Mapping[str, hlo.Instruction]
    computations: Mapping[str, Sequence[str]]
    frames: Mapping[int, Frame]
    taken_by: Mapping[str, Sequence[str]]

    def operands(self, name: str) -> Sequence[str]:
        """Returns the names of what an instruction takes."""
        return self.instructions[name].operands if name in self.instructions else ()

    def users(self, name: str) -> Sequence[str]:
        """Returns the names of what takes an instruction's result."""
        return self.taken_by.get(name, ())


def read_program(text: str) -> Program:
    """Returns a program by its text; an empty one where the text is none."""
    try:
        module = hlo.parse(text)
    except ValueError:
        return Program("", {}, {}, {}, {})
    instructions: dict[str, hlo.Instruction] = {}
    taken_by: dict[str, list[str]] = {}
    for computation in module.computations.values():
        instructions |= computation.instructions
        for given, users in computation.users.items():
            taken_by.setdefault(given, []).extend(one.name for one in users)
    computations = {name: tuple(one.instructions) for name, one in module.computations.items()}
    found = re.match(r"HloModule ([\w.\-]+)", text)
    name = found[1] if found else ""
    return Program(name, instructions, computations, _frames(_tables(text)), taken_by)


def frame_of(one: hlo.Instruction) -> int:
    """Returns the number of an instruction's innermost Python frame; 0 is none."""
    return _number(one.attributes, "stack_frame_id")


def _tables(text: str) -> dict[str, dict[int, str]]:
    """The tables of Python frames before a program's computations: rows by number."""
    tables: dict[str, dict[int, str]] = {}
    table: dict[int, str] = {}
    for line in text.splitlines():
        row = _ROW.fullmatch(line)
        if line.strip() in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line.strip(), {})
        elif row:
            table[int(row[1])] = row[2]
    return tables


def _frames(tables: Mapping[str, Mapping[int, str]]) -> dict[int, Frame]:
    files = {n: name.strip('"') for n, name in tables.get("FileNames", {}).items()}
    places = {
        n: (files.get(_number(row, "file_name_id"), ""), _number(row, "line"))
        for n, row in tables.get("FileLocations", {}).items()
    }
    # a parent is written as its number plus one: 1 means that there is none
    return {
        n: Frame(
            *places.get(_number(row, "file_location_id"), ("", 0)),
            max(0, _number(row, "parent_frame_id") - 1),
        )
        for n, row in tables.get("StackFrames", {}).items()
    }


def _number(text: str, key: str) -> int:
    found = re.search(rf"\b{key}=(\d+)", text)
    return int(found[1]) if found else 0


# --- what an instruction is -----------------------------------------------------------------------


def origin(program: Program, name: str) -> hlo.Instruction | None:
    """Returns the instruction that says where one comes from; None if none does.

    That is the instruction itself, or of a fusion the last in it that knows. What the compiler made
    by itself, such as a copy, comes from what it takes, or else from what takes it. A constant is
    shared by all who need one like it, so that it comes from what takes it alone.
    """
    ways = (program.users,) if is_constant(program, name) else (program.operands, program.users)
    for nearby in ways:
        pending, seen = [name], 0
        while pending and seen < NEARBY:
            at, seen = pending.pop(0), seen + 1
            for one in () if is_constant(program, at) else inside(program, at):
                if frame_of(one) in program.frames:
                    return one
            pending += nearby(at)
    return None


NEARBY = 8
"""hlo.Instructions around one that are asked where it comes from."""


def is_constant(program: Program, name: str, depth: int = 4) -> bool:
    """Says whether an instruction makes a constant, or changes the form of one."""
    one = program.instructions.get(name)
    if one is None or one.opcode in ("constant", "iota"):
        return one is not None
    if one.opcode not in ("fusion", "broadcast", "copy", "bitcast", "convert", "reshape"):
        return False
    return depth > 0 and all(is_constant(program, given, depth - 1) for given in one.operands)


def where(program: Program, name: str, is_own: Callable[[str], bool]) -> tuple[str, int]:
    """Returns the file and the line that an instruction comes from; empty and 0 if unknown.

    Args:
      program: holds it.
      name: the instruction's; see `origin`.
      is_own: says of a file whether it is of interest: the innermost of these is taken, or where
        there is none the innermost at all.
    """
    one, frames = origin(program, name), program.frames
    if one is None:
        return "", 0
    chain: list[Frame] = []
    number = frame_of(one)
    while number in frames and len(chain) < len(frames):
        chain.append(frames[number])
        number = frames[number].parent
    best = next((frame for frame in chain if is_own(frame.file)), chain[0])
    return best.file, best.line


def holds_others(program: Program, name: str) -> bool:
    """Says whether an instruction consists of others that run, and are traced, by themselves."""
    one = program.instructions.get(name)
    opcode = re.sub(r"[.\d]+$", "", name) if one is None else one.opcode
    return opcode in ("while", "conditional", "call")


def inside(program: Program, name: str) -> list[hlo.Instruction]:
    """Returns an instruction and, of a fusion, those that it consists of, the result first."""
    one = program.instructions.get(name)
    if one is None:
        return []
    found = [one]
    if one.opcode == "fusion":
        for computation in one.called.values():
            for inner in reversed(program.computations.get(computation, ())):
                found += inside(program, inner)
    return found


def kind(program: Program, name: str) -> str:
    """Returns what an instruction does: its opcode, or of a fusion its heaviest inner one."""
    found = inside(program, name)
    if not found:
        return name.rstrip("0123456789.").rstrip(".") or name
    if found[0].opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', found[0].attributes)
        return target[1] if target else "custom-call"
    if len(found) == 1:
        return found[0].opcode
    opcodes = [one.opcode for one in found[1:]]
    for heavy in HEAVY:
        if heavy in opcodes:
            return f"{found[0].opcode} of {heavy}"
    return found[0].opcode


HEAVY = (
    "dot", "convolution", "custom-call", "all-reduce", "sort", "scatter", "gather",
    "reduce-window", "reduce", "rng-bit-generator", "dynamic-slice", "dynamic-update-slice",
    "transpose",
)  # fmt: skip
"""What a fusion is named after, the first of it that is in it."""


def layer(op_name: str) -> str:
    """Returns the layer that an operation belongs to, and whether it is its backward pass.

    Example:
      >>> layer("jit(one_step)/transpose(jvp(MLP))/Dense_0/dot_general")
      'MLP/Dense_0 backward'
      >>> layer("jit(one_step)/add")
      ''
    """
    parts: list[str] = []
    if op_name.startswith("("):  # of several operations put into one
        return ""
    for part in op_name.split("/")[:-1]:
        bare = re.sub(r"^(?:\w+\()+|\)+$", "", part)
        if bare and not _SCOPELESS.fullmatch(part) and bare not in parts[-1:]:
            parts.append(bare)
    named = "/".join(parts)
    return f"{named} backward" if named and "transpose(" in op_name else named


_SCOPELESS = re.compile(
    r"p?jit\(.*\)|while|body|cond|body_fun|cond_fun|branch_\d+_fun|closed_call|checkpoint|remat\d?"
    r"|rematted_computation|custom_\w+_call|shard_map|vmap\(\)|transpose\(\)|[\w<>]+\.[\w.<>]+"
)
"""Parts of a name stack that name no layer: programs, control flow, a module's methods."""


def flops(program: Program, name: str) -> int | None:
    """Returns the FLOPs of an instruction's matrix products and convolutions; None if it has none.

    A multiplication and its addition are two.
    """
    counted = [_flops(program, one) for one in inside(program, name)]
    known = [count for count in counted if count is not None]
    return sum(known) if known else None


def _flops(program: Program, one: hlo.Instruction) -> int | None:
    taken = [program.instructions.get(name) for name in one.operands]
    shapes = [found.shapes[0].dims if found and found.shapes else () for found in taken]
    is_product = one.opcode == "dot" or (
        one.opcode == "custom-call" and "$matmul" in one.attributes
    )
    if not one.shapes or len(shapes) < 2:
        return None
    size = math.prod(one.shapes[0].dims)
    if is_product or '"dot_dimension_numbers"' in one.attributes:
        axes = re.search(r'lhs_contracting_d\w+"?[=:][\[{]([\d", ]*)[\]}]', one.attributes)
        over = [int(axis) for axis in re.findall(r"\d+", axes[1])] if axes else []
        return 2 * size * math.prod(shapes[0][axis] for axis in over if axis < len(shapes[0]))
    if one.opcode == "convolution":
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)
        if labels is None or len(labels[1]) != len(shapes[1]):
            return None
        # each output is a sum over the kernel's positions and input channels
        each = math.prod(n for n, label in zip(shapes[1], labels[1]) if label != "o")
        return 2 * size * each
    return None


def nbytes(program: Program, name: str) -> int | None:
    """Returns the bytes of what an instruction takes and makes, by its shapes; None if unknown.

    An operand that it reads in part counts as a whole.
    """
    one = program.instructions.get(name)
    if one is None:
        return None
    taken = [program.instructions[given] for given in one.operands if given in program.instructions]
    return sum(shape.plain_bytes for each in (one, *taken) for shape in each.shapes)


def largest(program: Program, count: int) -> list[hlo.Instruction]:
    """Returns the instructions that make the largest arrays, outside of fusions, largest first."""
    fused = {
        inner
        for one in program.instructions.values()
        if one.opcode not in ("while", "call", "conditional")
        for called in one.called.values()
        for inner in program.computations.get(called, ())
    }
    made = [
        one
        for one in program.instructions.values()
        if one.name not in fused and one.opcode not in FREE and one.opcode != "while"
    ]
    return sorted(made, key=made_bytes, reverse=True)[:count]


def made_bytes(one: hlo.Instruction) -> int:
    """Returns the bytes of what an instruction makes."""
    return sum(shape.plain_bytes for shape in one.shapes)
