"""The text of a compiled program (HLO) as computations of instructions. Pure functions on text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16,
    "s32": 32, "u32": 32, "s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64,
    "c64": 64, "c128": 128,
}  # fmt: skip
"""The bits of a number of each type; a type of 8 bits or fewer that isn't here says so in its name
(``f8e4m3fn``, ``f4e2m1fn``), and what is no number has none."""
ON_CHIP = re.compile(r"S\((\d+)\)")
"""The memory space of a layout; one without is in a device's own memory (HBM)."""
ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=?]*)\](\{[^{}]*\})?")
OPERAND = re.compile(r"(?:^|,|\s)%?([a-zA-Z_][\w.\-]*)(?=,|$)")
"""The name at the end of each operand, behind its shape where that is written."""
CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
COMMENT = re.compile(r"/\*.*?\*/")


class Shape(NamedTuple):
    """An array as a program holds it.

    Attributes:
      dtype: as HLO writes it, such as ``bf16``.
      dims: its sizes.
      nbytes: what it takes, the padding of the layout's tiles counted.
      in_hbm: whether it lies in the device's own memory, not on the chip or on the host.
    """

    dtype: str
    dims: tuple[int, ...]
    nbytes: int
    in_hbm: bool

    @property
    def size(self) -> int:
        """Returns how many numbers it has."""
        return math.prod(self.dims)

    @property
    def plain_bytes(self) -> int:
        """Returns its bytes without padding."""
        return -(-self.size * bits_of(self.dtype) // 8)


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
      name: without its ``%``.
      opcode: such as ``fusion``.
      shapes: what it gives; of a tuple, its arrays one after the other.
      operands: names of the instructions that it takes.
      called: the computations that it calls, by what they are: ``calls``, ``body``, …
      attributes: the text behind the operands.
      literal: the text between its parentheses.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    called: Mapping[str, str]
    attributes: str
    literal: str

    @property
    def branches(self) -> tuple[str, ...]:
        """Returns the computations of which a ``conditional`` runs one."""
        found = BRANCHES.search(self.attributes)
        if found:
            return tuple(name.strip().lstrip("%") for name in found[1].split(","))
        names = ("true_computation", "false_computation")
        return tuple(self.called[name] for name in names if name in self.called)

    def attribute(self, name: str) -> str | None:
        """Returns the value of an attribute, as text."""
        found = re.search(rf"\b{name}=(\{{[^{{}}]*\}}|[^\s,{{]+)", self.attributes)
        return None if found is None else found[1]

    @property
    def source(self) -> str:
        """Returns the path of jax's names that it comes from, or nothing."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""


@dataclass(frozen=True)
class Computation:
    """Instructions in order, the last or the one marked as root being what it gives."""

    name: str
    instructions: Mapping[str, Instruction]
    root: str

    @cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        """Its parameters by their number."""
        return {
            int(one.literal): one for one in self.instructions.values() if one.opcode == "parameter"
        }

    @cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """Which instructions take each instruction."""
        found: dict[str, list[Instruction]] = {}
        for one in self.instructions.values():
            for name in dict.fromkeys(one.operands):
                found.setdefault(name, []).append(one)
        return {name: tuple(users) for name, users in found.items()}


@dataclass(frozen=True)
class Module:
    """A program: its computations by name, and the one that it begins with."""

    computations: Mapping[str, Computation]
    entry: str

    def __getitem__(self, name: str) -> Computation:
        """Returns a computation by its name."""
        return self.computations[name]


def bits_of(dtype: str) -> int:
    """Returns the bits of a number of a type; 0 of what is no number.

    Example:
      >>> bits_of("bf16"), bits_of("f8e4m3fn"), bits_of("token")
      (16, 8, 0)
    """
    if dtype in BITS:
        return BITS[dtype]
    small = re.match(r"f(\d)e", dtype)
    return int(small[1]) if small else 0


def shapes_of(text: str) -> tuple[Shape, ...]:
    """Returns the arrays of a shape, those of a tuple one after the other.

    Example:
      >>> [one.nbytes for one in shapes_of("(f32[2,3]{1,0}, bf16[4,3]{1,0:T(8,128)(2,1)S(1)})")]
      [24, 2048]
    """
    return tuple(_shape(*found.groups()) for found in ARRAY.finditer(text))


def _shape(dtype: str, sizes: str, layout: str | None) -> Shape:
    dims = tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size.strip("<=?"))
    space = ON_CHIP.search(layout or "")
    held = _padded(dims, layout or "")
    nbytes = -(-math.prod(held) * bits_of(dtype) // 8)
    return Shape(dtype, dims, nbytes, space is None or space[1] == "0")


def _padded(dims: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The sizes of an array in memory: those that a layout's first tile covers are rounded up."""
    order, _, tiling = layout.strip("{}").partition(":")
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    if not tile or not dims:
        return dims
    held = [dims[int(axis)] for axis in reversed(order.split(",")) if axis]  # major to minor
    sizes = [int(size) for size in tile[1].split(",")]
    for back, size in enumerate(reversed(sizes), 1):
        if back <= len(held):
            held[-back] = -(-held[-back] // size) * size
    return tuple(held)


def parse(text: str) -> Module:
    """Returns a program of its text, as `jax.stages.Compiled.as_text` gives it.

    Raises:
      ValueError: it is no program.
    """
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not name:
            opened = re.match(r"(ENTRY )?%?([\w.\-]+)\b.*\{$", stripped)
            if opened and not stripped.startswith("HloModule"):
                name, root, instructions = opened[2], "", {}
                entry = name if opened[1] else entry
        elif stripped == "}" or stripped.startswith("}, "):
            last = root or next(reversed(instructions), "")
            computations[name] = Computation(name, instructions, last)
            name = ""
        else:
            one = _instruction(stripped)
            if one is not None:
                instructions[one.name] = one
                root = one.name if stripped.startswith("ROOT ") else root
    if entry not in computations:
        raise ValueError("the text is no HLO program: it has no ENTRY computation")
    return Module(computations, entry)


def _instruction(line: str) -> Instruction | None:
    left, equals, rest = line.removeprefix("ROOT ").partition(" = ")
    if not equals:
        return None
    rest = COMMENT.sub("", rest)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opened = rest.find("(")
    if end < 0 or opened < 0:
        return None
    closed = _closing(rest, opened)
    literal, attributes = rest[opened + 1 : closed], rest[closed + 1 :].lstrip(", ")
    return Instruction(
        left.lstrip("%"),
        rest[:opened],
        shapes_of(shape),
        () if rest[:opened] in ("parameter", "constant") else tuple(OPERAND.findall(literal)),
        dict(CALLED.findall(attributes)),
        attributes,
        literal,
    )


def _closing(text: str, opened: int) -> int:
    """The place of the parenthesis that closes the one at a place."""
    depth = 0
    for place in range(opened, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place
    return len(text)


def inside(module: Module, one: Instruction) -> Iterator[Computation]:
    """Yields the computation that an instruction is made of: a fusion's, or what runs apart."""
    name = one.called.get("calls")
    if name is not None and name in module.computations:
        yield module[name]
