"""The seconds that a program must take, by what bounds them: arithmetic, memory, links. Pure.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jdlopt.plan.chips import Chip
from jdlopt.plan.collectives import Collective
from jdlopt.plan.operations import Operation

ATTAINED = 0.6
"""The share of its peak at which a chip multiplies in the slow estimate: published trainings of
large transformers reach 0.56 to 0.71."""
HOP_SECONDS = 1e-6
"""What a message takes from a chip to the next, about ("How to scale your model", chapter 2)."""


@dataclass(frozen=True)
class Seconds:
    """How long a program takes on a chip, at least, in seconds.

    Attributes:
      compute: of its matrix products and convolutions at the chip's peak.
      hbm: of the bytes to and from the chip's memory.
      operations: of its operations one after the other, each bound by one of these two; of these,
        ``at_memory``: of those that memory bounds.
      ici, dcn: of what is sent within a slice, and between slices.
      low: all of these at the same time, each at its peak.
      high: one after the other, products at `ATTAINED` of their peak.
      bound: which of them bounds ``low``: ``compute``, ``HBM``, ``ICI`` or ``DCN``.
    """

    compute: float
    hbm: float
    operations: float
    at_memory: float
    ici: float
    dcn: float
    low: float
    high: float
    bound: str


def seconds_of(
    operations: Sequence[tuple[Operation, float]],
    collectives: Sequence[tuple[Collective, float]],
    chip: Chip,
    share: Callable[[Sequence[int]], float] = lambda _: 1.0,
    slices: Callable[[Sequence[int]], int] = lambda _: 1,
) -> Seconds:
    """Returns the roofline of operations and collectives.

    Args:
      operations, collectives: with how often each is done.
      chip: on which.
      share: of a group of devices: which share of a chip's links they can use.
      slices: in how many slices they are.
    """
    compute = hbm = both = slow = 0.0
    at_memory = 0.0
    for one, times in operations:
        products = sum(count / chip.peak(kind) for kind, count in one.flops.items())
        moved = one.hbm_bytes / chip.hbm_bandwidth
        compute += times * products
        hbm += times * moved
        both += times * max(products, moved)
        slow += times * max(products / ATTAINED, moved)
        at_memory += times * moved if moved > products else 0.0
    ici = dcn = 0.0
    for sent, times in collectives:
        group = sent.groups[0]
        within, between = sent_bytes(sent, slices(group))
        links = share(group) if sent.kind != "collective-permute" else share(group[:2])
        if within:
            ici += times * max(
                within / (chip.ici_bandwidth * links), _hops(sent, chip) * HOP_SECONDS
            )
        dcn += times * between / chip.dcn_bandwidth
    ends = {"compute": both, "ICI": ici, "DCN": dcn}
    bound = max(ends, key=lambda name: ends[name])
    if bound == "compute" and at_memory > both / 2:
        bound = "HBM"
    low, high = max(ends.values()), slow + ici + dcn
    return Seconds(compute, hbm, both, at_memory, ici, dcn, low, high, bound)


def sent_bytes(one: Collective, slices: int = 1) -> tuple[float, float]:
    """Returns the bytes that a chip sends for a collective, within its slice and to other slices.

    Arrays are gathered, scattered and reduced around rings of ``n`` devices, both ways: a gather or
    a scatter sends (n − 1)/n of the array, a reduction both. All-to-all sends the n-th part of its
    array to each device, on average n/4 links away. Over ``s`` slices, each of the devices in a
    slice sends its own part of the array.

    Args:
      one: the collective.
      slices: that its devices are in.
    """
    inside = max(1, one.devices // slices)
    if one.kind == "collective-permute":
        return (one.nbytes, 0.0) if slices == 1 else (0.0, one.nbytes)
    around = (inside - 1) / inside
    if "all-to-all" in one.kind:
        far = max(around, inside / 4) if inside > 1 else 0.0
        return one.nbytes * far / slices, one.nbytes * (slices - 1) / slices
    rounds = 2 if one.kind == "all-reduce" else 1
    across = (slices - 1) / slices / inside
    return rounds * around * one.nbytes, rounds * across * one.nbytes


def _hops(one: Collective, chip: Chip) -> float:
    """How many chips away the farthest of a group is, about: half a ring, in each dimension."""
    if one.kind == "collective-permute":
        return 1.0
    sides = max(1, chip.torus)
    return max(1.0, sides * one.devices ** (1 / sides) / 2)
