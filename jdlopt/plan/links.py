"""What the chips of a mesh send each other for a step, from shapes alone, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jdlopt.errors import ConfigError
from jdlopt.mesh.axes import BATCH_AXES, FSDP
from jdlopt.plan.chips import Chip
from jdlopt.plan.held import Held
from jdlopt.plan.traced import Traced


@dataclass(frozen=True)
class Carried:
    """Collectives of one kind over one axis of the mesh, of a step.

    Attributes:
      axis: of the mesh.
      kind: such as ``all-gather``.
      what: ``parameters``, ``gradients`` or ``activations``.
      nbytes: of the arrays on a chip: what is gathered, reduced or sent.
      ici, dcn: seconds that they take, within a slice and over the network.
      waited: whether nothing else can be computed meanwhile.
    """

    axis: str
    kind: str
    what: str
    nbytes: float
    ici: float
    dcn: float
    waited: bool


class Network:
    """How the axes of a mesh lie on the links between chips.

    Slices split the outermost axes, as `jdlopt.mesh.devices` lays them. Within a slice, an axis has
    its part of the links: of a torus those of the dimensions that it takes, at least one; of a
    switch all of them.

    Attributes:
      inner, outer: devices along each axis within a slice, and slices along it.
    """

    def __init__(self, chip: Chip, sizes: Mapping[str, int], slices: int):
        self.chip, left = chip, slices
        self.inner, self.outer = {}, {}
        for name, size in sizes.items():
            ways = math.gcd(size, left)
            left //= ways
            self.inner[name], self.outer[name] = size // ways, ways
        if left > 1:
            raise ConfigError(
                f"mesh.data: {slices} slices can't be shared out over the axes of the mesh, "
                f"{dict(sizes)}. Make mesh.data a multiple of {slices}."
            )

    def links(self, axis: str) -> float:
        """Returns which share of a chip's links an axis has."""
        if not self.chip.torus:
            return 1.0
        all_inner = math.prod(self.inner.values())
        if self.inner[axis] < 2 or all_inner < 2:
            return 1.0
        taken = math.log(self.inner[axis]) / math.log(all_inner)
        return min(1.0, max(taken, 1 / self.chip.torus))

    def seconds(self, kind: str, axis: str, nbytes: float) -> tuple[float, float]:
        """Returns how long a collective takes at full speed, within a slice and between slices.

        Arrays go around rings both ways: a gather or a scatter over n devices sends (n − 1)/n of
        the array, a reduction both; between slices, each device of one sends its own part.

        Args:
          kind: of collective.
          axis: of the mesh.
          nbytes: of the array, on a device.
        """
        inner, outer = self.inner[axis], self.outer[axis]
        rounds = 2 if kind == "all-reduce" else 1
        within = rounds * nbytes * (inner - 1) / inner
        between = rounds * nbytes * (outer - 1) / outer / inner
        speed = self.chip.ici_bandwidth * self.links(axis)
        return within / speed, between / self.chip.dcn_bandwidth


def carried(
    traced: Traced, held: Held, network: Network, local: float, accumulate: int
) -> list[Carried]:
    """Returns the collectives of a step.

    Parameters are gathered, and gradients scattered and reduced, for every micro-batch.

    Args:
      traced: the step.
      held: what a chip holds of the state.
      network: the mesh on its links.
      local: examples of a micro-batch on a chip.
      accumulate: micro-batches.
    """
    sizes = {name: network.inner[name] * network.outer[name] for name in network.inner}
    found: dict[tuple[str, str, str], float] = {}

    def add(axis: str, kind: str, what: str, nbytes: float) -> None:
        if sizes.get(axis, 1) > 1 and nbytes:
            key = axis, kind, what
            found[key] = found.get(key, 0.0) + accumulate * nbytes

    add(FSDP, "all-gather", "parameters", held.gathered)
    add(FSDP, "reduce-scatter", "gradients", held.scattered)
    add(FSDP, "all-reduce", "gradients", held.whole_gradients)
    for axis in (*BATCH_AXES, "sequence"):
        if axis not in (FSDP, "expert"):
            add(axis, "all-reduce", "gradients", held.gradients + held.whole_gradients)
    positions = sizes.get("sequence", 1)
    for one in traced.sent:
        over = math.prod(sizes.get(axis, 1) for axis in one.over if axis != one.axis)
        if one.axis != "sequence" and one.size.power:
            over *= positions
        nbytes = one.times * one.size.each * local**one.size.power / over
        add(one.axis, one.kind, "activations", nbytes)
    return [
        Carried(*key, nbytes, *network.seconds(key[1], key[0], nbytes), key[2] == "activations")
        for key, nbytes in found.items()
    ]
