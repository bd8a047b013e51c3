"""Machines that a plan is made for: a topology by its name, and its devices to compile for."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jdlopt.errors import UserError
from jdlopt.plan.chips import Chip, find_chip

if TYPE_CHECKING:  # what asks for a plan needs no jax
    import jax

MISSING = (
    "--topology: libtpu, the compiler for TPUs, is not installed; it needs no TPU. Install it with "
    "pip install 'jdlopt[plan]'."
)
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
         "8x16x16", "16x16x16")  # fmt: skip
STANDARD = {"v5e": _FLAT, "v6e": _FLAT, "v5p": (*_DEEP, "16x16x24", "16x20x28")}
"""The slices that are rented out, in chips, of each TPU that can be compiled for here."""


@dataclass(frozen=True)
class Topology:
    """Chips, and how they are joined.

    Attributes:
      chip: their kind.
      shape: chips along each dimension of a slice; of GPUs, those of a machine.
      slices: slices or machines, which a network joins.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """How it is written, such as ``v5e:4x4``."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """How many chips it has in all."""
        return math.prod(self.shape) * self.slices


def parse(text: str, slices: int = 1) -> Topology:
    """Returns the topology of a name such as ``v5e:4x4``; of GPUs, ``H100:8``.

    Args:
      text: a chip, and the size of a slice in chips.
      slices: how many slices, or machines.

    Raises:
      UserError: no such chip, or no such slice of it; the message names the nearest.

    Example:
      >>> parse("v5e:4x4").chips, parse("v5p:2x2x4", slices=2).chips
      (16, 32)
    """
    if slices < 1:
        raise UserError(f"--slices: must be at least 1, found {slices}.")
    kind, _, size = text.strip().partition(":")
    chip = find_chip(kind)
    dimensions = max(1, chip.torus)
    slices_known = STANDARD.get(chip.name, _DEEP if chip.is_tpu else (str(chip.most),))
    example = f"{chip.name}:{slices_known[min(3, len(slices_known) - 1)]}"
    known = f" Slices of {chip.name}: {', '.join(slices_known)}." if chip.is_tpu else ""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        found = f"{size!r} is no size" if size else "the size is missing"
        raise UserError(f"--topology: {text!r}: {found}; write it such as {example}.{known}")
    shape = tuple(int(number) for number in size.split("x"))
    if len(shape) != dimensions:
        hint = ""
        if chip.is_tpu:
            hint = f" Did you mean {nearest_slice(chip, math.prod(shape))!r}?"
        raise UserError(
            f"--topology: {text!r} has {len(shape)} dimensions; a slice of {chip.name} has "
            f"{dimensions}, such as {example}.{hint}{known}"
        )
    if math.prod(shape) > chip.most:
        what = "a slice" if chip.is_tpu else "a machine"
        raise UserError(
            f"--topology: {text!r} has {math.prod(shape):,} chips; {what} of {chip.name} has "
            f"{chip.most:,} at most. For more of them, add --slices=N."
        )
    return Topology(chip, shape, slices)


def nearest_slice(chip: Chip, count: int) -> str:
    """Returns the standard slice of a TPU whose number of chips is nearest, by its name.

    Example:
      >>> nearest_slice(find_chip("v5e"), 20)
      'v5e:4x4'
    """

    def away(size: str) -> float:
        return abs(math.log(math.prod(map(int, size.split("x"))) / count))

    return f"{chip.name}:{min(STANDARD.get(chip.name, _DEEP), key=away)}"


def devices_of(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a topology: programs can be compiled for them, and not run.

    Raises:
      UserError: libtpu is not installed, or knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(MISSING)
    import jax
    from jax.experimental import topologies

    more: dict[str, object] = {}
    if topology.slices > 1:
        more["num_slices"] = topology.slices
    if math.prod(topology.shape) == 1:
        more["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(topology.name, "tpu", **more).devices)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")[:200].rstrip(".")
        near = nearest_slice(topology.chip, math.prod(topology.shape))
        raise UserError(
            f"--topology: {topology.name!r} is no slice that libtpu knows ({reason}). Did you mean "
            f"{near!r}? Slices of {topology.chip.name}: "
            f"{', '.join(STANDARD[topology.chip.name])}."
        ) from error


def link_share(topology: Topology, devices: Sequence[jax.Device], group: Sequence[int]) -> float:
    """Returns which share of a chip's links the devices of a group can use among themselves.

    A dimension along which they differ has links in both directions where it closes to a ring, as
    one of 16 chips does, or in three dimensions a multiple of 4; else those at its ends have one.

    Args:
      topology: the machine.
      devices: of the mesh, in its order.
      group: places of some of them.
    """
    coords = [tuple(getattr(devices[place], "coords", None) or ()) for place in group]
    used = 0
    for axis, size in enumerate(topology.shape):
        along = {one[axis] for one in coords if axis < len(one)}
        closes = size == 16 if topology.chip.torus == 2 else size % 4 == 0
        if len(along) > 1:
            used += 2 if closes and len(along) == size else 1
    return used / (2 * topology.chip.torus) if used else 1.0


def slices_of(devices: Sequence[jax.Device], group: Sequence[int]) -> int:
    """Returns how many slices the devices of a group are in."""
    return len({getattr(devices[place], "slice_index", 0) for place in group})
