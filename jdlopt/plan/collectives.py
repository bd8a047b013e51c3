"""What devices send each other in a compiled program: kinds, bytes, over which axes. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from jdlopt.plan.hlo import Computation, Instruction, Module
from jdlopt.plan.operations import Work

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
         "collective-broadcast", "ragged-all-to-all")  # fmt: skip
STARTS = "AsyncCollectiveStart"
"""What the TPUs' compiler calls where a collective begins that goes on beside other work."""
Groups = tuple[tuple[int, ...], ...]
"""Which devices send to each other, by their places in the mesh."""


@dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      name: the instruction's.
      kind: one of `KINDS`.
      axes: the mesh axes along which its devices differ.
      nbytes: of the whole array on one device: what is gathered, reduced or sent.
      devices: in one group.
      times: how often it runs in one call of the program; in a loop of unknown length, in a turn.
      turning: whether it is in such a loop.
      dtype: of its numbers.
      source: jax's name of where it comes from.
      groups: the devices that send to each other.
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    nbytes: int
    devices: int
    times: float
    turning: bool
    dtype: str
    source: str
    groups: Groups


def collectives_of(module: Module, work: Work, mesh: Mapping[str, int]) -> tuple[Collective, ...]:
    """Returns the collectives of a program, each once.

    What is written as a start, a middle and an end, each in a computation of its own, is one
    collective, known by its channel: it runs as often as it is started, since its middle may be
    done piece by piece in the turns of a loop; where no start is written, as often as that of them
    which runs most often.

    Args:
      module: the program.
      work: what it does.
      mesh: the sizes of the mesh's axes, in their order.
    """
    found: dict[tuple[str, ...], dict[str, list[Collective]]] = {}
    starts: set[str] = set()
    for name, times in work.computations.items():
        computation = module[name]
        if any(STARTS in one.attributes for one in computation.instructions.values()):
            starts.add(name)
        for one in computation.instructions.values():
            kind = _kind(computation, one)
            if kind is None:
                continue
            made = _collective(one, kind, times, name in work.turning, mesh)
            channel = one.attribute("channel_id")
            # programs that number all their channels 1 tell them apart by where they come from
            key = (channel, one.source, str(made.nbytes)) if channel else (name, one.name)
            if made.devices > 1:
                found.setdefault(key, {}).setdefault(name, []).append(made)
    return tuple(one for places in found.values() for one in _once(places, starts))


def _once(places: Mapping[str, list[Collective]], starts: Set[str]) -> list[Collective]:
    """One collective of all that are written of it, by the computations that they stand in."""
    begun = [one for name, several in places.items() if name in starts for one in several]
    if begun:
        return [replace(begun[0], times=sum(one.times for one in begun))]
    return max(places.values(), key=_weight)


def _weight(found: list[Collective]) -> tuple[float, bool]:
    """How often collectives run; of equals, what is known to be scattered comes first."""
    return sum(one.times for one in found), any(one.kind == "reduce-scatter" for one in found)


def _kind(computation: Computation, one: Instruction) -> str | None:
    kind = one.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    if kind == "all-reduce" and _is_scattered(computation, one):
        return "reduce-scatter"
    return kind


def _is_scattered(computation: Computation, one: Instruction) -> bool:
    """Whether a device keeps no more than its own slice of what is reduced, as in a fusion."""
    if "reduce-scatter" in computation.name:
        return True
    users = computation.users.get(one.name, ())
    return bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def _collective(
    one: Instruction, kind: str, times: float, turning: bool, mesh: Mapping[str, int]
) -> Collective:
    pairs = one.attribute("source_target_pairs")
    count = math.prod(mesh.values())
    groups = groups_of(one.attributes, count)
    shapes = [shape for shape in one.shapes if shape.dims or len(one.shapes) == 1]
    if one.opcode.endswith("-start") and one.opcode != "all-reduce-start" and len(shapes) > 1:
        # a start gives what it takes and what it makes
        shapes = shapes[1:2] if "permute" in kind else shapes[len(shapes) // 2 :]
    nbytes = sum(shape.plain_bytes for shape in shapes)
    devices = max(map(len, groups), default=1) if pairs is None else 2
    if one.opcode.startswith("reduce-scatter"):
        nbytes *= devices
    return Collective(
        one.name, kind, axes_of(groups, mesh), nbytes, devices, times, turning,
        shapes[0].dtype if shapes else "", one.source, groups,
    )  # fmt: skip


def groups_of(attributes: str, count: int) -> Groups:
    """Returns the groups of devices of a collective's attributes.

    Args:
      attributes: as HLO writes them: a list of groups, or how an array of all devices is cut.
      count: devices in all; no groups mean one of all of them.

    Example:
      >>> groups_of("replica_groups=[2,2]<=[2,2]T(1,0), channel_id=1", 4)
      ((0, 2), (1, 3))
      >>> groups_of("replica_groups=mesh['x'=2,'y'=2] {'y'}, dimensions={1}", 4)
      ((0, 1), (2, 3))
      >>> groups_of("replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}", 4)
      ((0, 2), (1, 3))
      >>> groups_of("source_target_pairs={{0,1},{1,0}}", 2)
      ((0, 1), (1, 0))
    """
    cut = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if cut:
        shape, source, order = (
            [int(number) for number in (part or "").split(",") if number] for part in cut.groups()
        )
        devices = np.arange(math.prod(source)).reshape(source)
        devices = devices.transpose(order) if order else devices
        rows = devices.reshape(shape).reshape(-1, shape[-1])
        return tuple(tuple(int(one) for one in row) for row in rows)
    meshed = re.search(r"replica_groups=mesh\[([^\]]*)\](.*?)\{([^}]*)\}", attributes)
    if meshed:
        return _mesh_groups(*meshed.groups())
    named = re.search(r"replica_groups=\{((?:\{[\d,\s]*\},?\s*)*)\}", attributes)
    named = named or re.search(r"source_target_pairs=\{((?:\{[\d,\s]*\},?\s*)*)\}", attributes)
    found = re.findall(r"\{([\d,\s]*)\}", named[1]) if named else []
    groups = tuple(tuple(int(number) for number in group.split(",")) for group in found if group)
    return groups or (tuple(range(count)),)


def _mesh_groups(sizes: str, order: str, along: str) -> Groups:
    """The groups of a mesh with axes of its own along some of them, or along parts of them.

    Args:
      sizes: such as ``'x'=2,'y'=4``.
      order: which device is where, if not in order: ``([2,4]<=[4,2]T(1,0))``, or without what
        the transposed array is cut into.
      along: such as ``'y'``, or ``'y':(2)2`` for a part: 2 places behind the first 2 of the axis.
    """
    axes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", sizes)}
    devices = np.arange(math.prod(axes.values()))
    cut = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?\)*$", order.strip())
    if cut:
        source = [int(size) for size in cut[1].split(",")]
        devices = devices.reshape(source)
        devices = (
            devices.transpose([int(axis) for axis in cut[2].split(",")]) if cut[2] else devices
        )
    shape: list[int] = []
    chosen: list[int] = []
    parts = {
        name: (int(before or 1), int(size or axes[name]))
        for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", along)
    }
    for name, size in axes.items():
        before, count = parts.get(name, (size, 1))
        shape += [before, count, size // (before * count)]
        chosen += [len(shape) - 2] if name in parts else []
    split = devices.reshape(shape)
    rows = np.moveaxis(split, chosen, range(-len(chosen), 0)).reshape(
        -1, math.prod(shape[axis] for axis in chosen)
    )
    return tuple(tuple(int(one) for one in row) for row in rows)


def axes_of(groups: Groups, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the mesh axes along which the devices of a group differ.

    Example:
      >>> axes_of(((0, 1), (2, 3)), {"data": 2, "fsdp": 2})
      ('fsdp',)
    """
    sizes, names = tuple(mesh.values()), tuple(mesh)
    found: set[int] = set()
    for group in groups:
        if max(group) >= math.prod(sizes):
            return ()
        places = np.array(np.unravel_index(np.array(group), sizes))
        found |= {axis for axis, row in enumerate(places) if len(set(row.tolist())) > 1}
    return tuple(names[axis] for axis in sorted(found))


def totals(
    found: Sequence[tuple[Collective, float]],
) -> dict[tuple[str, tuple[str, ...]], tuple[float, float]]:
    """Returns how many collectives there are and their bytes, by kind and axes.

    Args:
      found: collectives, with how often each is done.
    """
    sums: dict[tuple[str, tuple[str, ...]], tuple[float, float]] = {}
    for one, times in found:
        count, nbytes = sums.get((one.kind, one.axes), (0.0, 0.0))
        sums[one.kind, one.axes] = count + times, nbytes + times * one.nbytes
    return sums
