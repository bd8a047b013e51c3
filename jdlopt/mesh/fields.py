"""The ``mesh`` section of a config, and what can't be had of it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from jdlopt.config import Count, Range
from jdlopt.errors import listing, nearest
from jdlopt.mesh.axes import AXES, BATCH_AXES, FSDP


@dataclass(frozen=True)
class MeshFields:
    """The ``mesh`` section: devices along each axis, and what lies where.

    Attributes:
      data: devices that split only the batch; -1 takes all that are left.
      fsdp: devices that split the batch, and parameters and optimizer state, each gathered where it
        is used.
      pipeline: devices that each have some of the layers of a transformer that scans them
        (``model.scan_layers``), and hand their work on.
      microbatches: parts of a batch that are in the pipeline at once; None: as many as stages.
      expert: devices that split the batch, and the experts of a mixture (``model.experts``).
      tensor: devices that split layers by units, heads and channels.
      sequence: devices that split the activations of transformers by positions, but in attention.
      rules: over which axes parameters are split, before the rules that there are: each
        ``(PATTERN, AXIS, …)``, a regular expression that is searched anywhere in a parameter's path
        and an axis (or None) for each of its last dimensions.
    """

    data: Annotated[int, Range(-1)] = -1
    fsdp: Count = 1
    pipeline: Count = 1
    microbatches: Count | None = None
    expert: Count = 1
    tensor: Count = 1
    sequence: Count = 1
    rules: tuple[tuple[str | None, ...], ...] = ()


def axis_sizes(fields: MeshFields, num_devices: int) -> dict[str, int]:
    """Returns the devices along each axis, ``data`` among them what is left for it.

    Example:
      >>> axis_sizes(MeshFields(fsdp=2, tensor=2), 8)
      {'data': 2, 'fsdp': 2, 'pipeline': 1, 'expert': 1, 'sequence': 1, 'tensor': 2}
    """
    sizes = {name: int(getattr(fields, name)) for name in AXES}
    if sizes["data"] < 0:
        sizes["data"] = num_devices // _others(sizes)
    return sizes


def _others(sizes: dict[str, int]) -> int:
    return math.prod(size for name, size in sizes.items() if name != "data")


def mesh_problems(fields: MeshFields, batch_size: int, num_devices: int) -> list[str]:
    """Returns what is wrong with a mesh for a batch size and a number of devices, in words."""
    if fields.data == 0:
        return ["mesh.data: must be at least 1, or -1 for all devices that are left, found 0."]
    problems = _rule_problems(fields.rules)
    sizes = axis_sizes(fields, num_devices)
    others = _others(sizes)
    used = [name for name in AXES if name != "data" and sizes[name] > 1]
    keys = " × ".join(f"mesh.{name}" for name in used) or "mesh.fsdp"
    if others > num_devices:
        return [*problems, f"{keys}: {others} is more than the {num_devices} devices found."]
    if fields.data < 0 and num_devices % others:
        fitting = [n for n in range(1, num_devices + 1) if not num_devices % n]
        return [
            *problems,
            f"{keys}: {others} doesn't divide the {num_devices} devices found, so that "
            f"{num_devices % others} would have nothing to do. Take one of {listing(fitting)}, or "
            f"leave them out by mesh.data={num_devices // others}.",
        ]
    total = sizes["data"] * others
    if total > num_devices:
        names = ["data", *(used or ["fsdp"])]
        return [
            *problems,
            f"mesh: {' × '.join(names)} = {' × '.join(str(sizes[name]) for name in names)} needs "
            f"{total} devices; {num_devices} found.",
        ]
    return problems + _batch_problems(sizes, batch_size) + _part_problems(fields, sizes, batch_size)


def _batch_problems(sizes: dict[str, int], batch_size: int) -> list[str]:
    ways = math.prod(sizes[name] for name in BATCH_AXES)
    if not batch_size % ways:
        return []
    below = batch_size // ways * ways
    sized = " or ".join(str(size) for size in (below, below + ways) if size)
    data, rest = sizes["data"], ways // sizes["data"]
    fewer = max((n for n in range(1, data) if not batch_size % (n * rest)), default=0)
    devices = fewer * math.prod(sizes.values()) // data
    remedy = f", or train on {devices} of them, mesh.data={fewer}" if fewer else ""
    named = [name for name in BATCH_AXES if name in ("data", "fsdp") or sizes[name] > 1]
    split = " × ".join(f"mesh.{name}" for name in named)
    return [
        f"data.batch_size: {batch_size} can't be split evenly over {split} = {ways} devices. "
        f"Set data.batch_size to {sized}{remedy}."
    ]


def _part_problems(fields: MeshFields, sizes: dict[str, int], batch_size: int) -> list[str]:
    """Returns what is wrong with the parts of a batch that are in a pipeline at once."""
    if fields.pipeline == 1:
        if fields.microbatches is None:
            return []
        return ["mesh.microbatches: there is no pipeline for them: set mesh.pipeline above 1."]
    ways = math.prod(sizes[name] for name in BATCH_AXES)
    cut = fields.microbatches or fields.pipeline
    if batch_size % ways or not batch_size % (ways * cut):
        return []
    fitting = [n for n in range(1, batch_size // ways + 1) if not batch_size // ways % n]
    return [
        f"mesh.microbatches: {cut} can't share the {batch_size // ways} examples of each device "
        f"evenly. Set mesh.microbatches to one of {listing(fitting)}, or change data.batch_size."
    ]


def _rule_problems(rules: tuple[tuple[str | None, ...], ...]) -> list[str]:
    """Returns which rules can't be read, whatever the model."""
    problems = []
    for rule in rules:
        if not rule or not isinstance(rule[0], str):
            problems.append(
                f"mesh.rules: {rule!r} is no rule: expected a pattern of parameters' paths, and an "
                "axis or None for each of their last dimensions, such as "
                "('mlp/up/kernel$', None, 'tensor')."
            )
            continue
        try:
            re.compile(rule[0])
        except re.error as error:
            problems.append(
                f"mesh.rules: {rule[0]!r} is not a regular expression of parameter paths: {error}."
            )
        named = [axis for axis in rule[1:] if axis is not None]
        able = [name for name in AXES if name != "data"]
        for axis in named:
            if axis == "data":
                problems.append(
                    f"mesh.rules: {rule!r}: 'data' splits the batch alone. Parameters are split "
                    f"over {listing(able)}."
                )
            elif axis not in AXES:
                problems.append(
                    f"mesh.rules: {rule!r}: there is no axis {axis!r}.{nearest(axis, able)} "
                    f"Parameters are split over {listing(able)}."
                )
        if len(set(named)) < len(named):
            problems.append(f"mesh.rules: {rule!r} splits two dimensions over the same axis.")
        elif FSDP in named and len(named) > 1:
            problems.append(
                f"mesh.rules: {rule!r}: leave {FSDP!r} out. What another axis splits is split "
                "further over it."
            )
    return problems
