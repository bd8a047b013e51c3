"""The arithmetic of a compiled program's matrix products and convolutions. Pure."""

from __future__ import annotations

import math
import re
from functools import lru_cache

import numpy as np

from jdlopt.plan.hlo import Computation, Instruction, Module, inside

PASSES = {"highest": 6, "high": 3, "default": 1}
"""Products of bfloat16 that a TPU makes for one of float32, by the precision that is asked for."""


def flops_of(module: Module, computation: Computation, one: Instruction) -> dict[str, float]:
    """Returns the FLOPs of an instruction's matrix products and convolutions, by their type.

    A multiplication and its addition are two. The type is that in which a TPU multiplies: float32
    is split into as many products of bfloat16 as its precision asks for, and counts as these.

    Args:
      module: the program.
      computation: that the instruction stands in.
      one: the instruction; a fusion counts as all that is in it.
    """
    if one.opcode in ("dot", "convolution"):
        left, right = (computation.instructions.get(name) for name in one.operands[:2])
        if left is None or right is None:
            return {}
        count = _dot(one, left) if one.opcode == "dot" else _convolution(one, left, right)
        kinds = {left.shapes[0].dtype, right.shapes[0].dtype}
        kind, passes = multiplied_in(kinds, one.attribute("operand_precision") or "")
        return {kind: 2.0 * count * passes}
    found: dict[str, float] = {}
    if one.opcode not in ("while", "conditional", "call"):
        for called in inside(module, one):
            for inner in called.instructions.values():
                for kind, flops in flops_of(module, called, inner).items():
                    found[kind] = found.get(kind, 0.0) + flops
    return found


def multiplied_in(kinds: set[str], precision: str = "") -> tuple[str, int]:
    """Returns the type that a TPU multiplies two types in, and how many products that takes.

    Example:
      >>> multiplied_in({"s8"}), multiplied_in({"f32"}), multiplied_in({"f32"}, "{highest,highest}")
      (('int8', 1), ('bfloat16', 1), ('bfloat16', 6))
    """
    if kinds <= {"s8", "u8", "s4", "u4"}:
        return "int8", 1
    if all(re.match("f[48]e", kind) for kind in kinds):
        return "float8", 1
    if "f32" in kinds:
        asked = [PASSES[word] for word in re.findall("highest|high|default", precision)]
        return "bfloat16", max(asked, default=1)
    return "bfloat16", 1


def _dot(one: Instruction, left: Instruction) -> int:
    contracted = _numbers(one.attribute("lhs_contracting_dims"))
    sizes = left.shapes[0].dims
    return one.shapes[0].size * math.prod(sizes[axis] for axis in contracted)


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text or "")]


def _convolution(one: Instruction, left: Instruction, right: Instruction) -> int:
    """Multiplications of numbers that are there: those with padding and holes are left out."""
    labels = one.attribute("dim_labels")
    if labels is None:
        return 0
    inputs, rest = labels.split("_", 1)
    kernels, outputs = rest.split("->")
    image, kernel, out = left.shapes[0].dims, right.shapes[0].dims, one.shapes[0].dims
    groups = int(one.attribute("feature_group_count") or 1)
    batches = int(one.attribute("batch_group_count") or 1)
    count = image[inputs.index("f")] // groups * kernel[kernels.index("o")]
    count *= image[inputs.index("b")] // batches
    window = _window(one.attribute("window") or "{}", len(image) - 2)
    for axis in range(len(image) - 2):
        name = str(axis)
        sizes = image[inputs.index(name)], kernel[kernels.index(name)], out[outputs.index(name)]
        count *= _meetings(*sizes, *(part[axis] for part in window))
    return count


def _window(text: str, axes: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """The stride, padding before, and dilations of input and kernel, an axis each."""
    if not axes:
        return [], [], [], []

    def read(name: str, default: str) -> list[str]:
        found = re.search(rf"\b{name}=(\S+?)(?=[\s}}]|$)", text)
        return (found[1] if found else "x".join([default] * axes)).split("x")

    pads = [int(pair.split("_")[0]) for pair in read("pad", "0_0")]
    stride, inputs, kernels = (
        list(map(int, read(name, "1"))) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    return stride, pads, inputs, kernels


@lru_cache(maxsize=4096)
def _meetings(
    size: int, kernel: int, out: int, stride: int, pad: int, dilation: int, kernel_dilation: int
) -> int:
    """How many pairs of a kernel's and an output's place meet a number, along one axis."""
    if kernel == 1 and not pad and dilation == 1:
        return min(out, -(-size // stride))
    if size == 1 and dilation == 1:  # each output place meets one kernel place at most
        at = np.arange(out) * stride - pad
        return int(((at <= 0) & (-at % kernel_dilation == 0)
                    & (-at // kernel_dilation < kernel)).sum())  # fmt: skip
    total, ends = 0, (size - 1) * dilation
    first = np.arange(out, dtype=np.int64) * stride - pad
    for place in range(kernel):
        at = first + place * kernel_dilation
        total += int(((at >= 0) & (at <= ends) & (at % dilation == 0)).sum())
    return total
