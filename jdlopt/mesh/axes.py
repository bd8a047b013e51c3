"""The axes of a mesh, in one table: to add one, add a row here and a field to `MeshFields`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Axis(NamedTuple):
    """What devices along an axis of the mesh divide among them.

    Attributes:
      batch: whether each has rows of the batch of its own.
      any_model: whether it is of use whatever the model: then nothing of it needs to be split.
      whole_model: whether each is to have a part of (almost) every parameter, so that parameters
        that no rule places are an error.
    """

    batch: bool = False
    any_model: bool = False
    whole_model: bool = False


AXES: dict[str, Axis] = {
    "data": Axis(batch=True, any_model=True),
    "fsdp": Axis(batch=True, any_model=True),
    "pipeline": Axis(),
    "expert": Axis(batch=True),
    "sequence": Axis(),
    "tensor": Axis(whole_model=True),
}
"""By name, outermost first: neighbours along a later axis are nearer and exchange more."""

BATCH_AXES = tuple(name for name, axis in AXES.items() if axis.batch)
"""The axes over which a batch is split."""
FSDP = "fsdp"
"""The axis over which every large array of the state is split, along whichever of its own."""
PIPELINE = "pipeline"
"""The axis over which the layers of a scan are split."""
STACKS = (PIPELINE, "expert")
"""Axes that divide layers or networks among devices, and no product in one of them."""

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "stages": ("pipeline",),
    "experts": ("expert",),
    "routed": tuple(name for name in BATCH_AXES if name != "expert"),
    "positions": ("sequence",),
    "heads": ("tensor",),
    "hidden": ("tensor",),
}
"""Over which axes of the mesh those of activations are split, by the names of
`jdlopt.models.axes`."""


def batch_ways(sizes: Mapping[str, int]) -> int:
    """Returns into how many parts a batch is split.

    Args:
      sizes: devices along each axis, such as ``mesh.shape``.

    Example:
      >>> batch_ways({"data": 2, "fsdp": 4, "pipeline": 1, "expert": 1, "sequence": 1, "tensor": 2})
      8
    """
    ways = 1
    for name in BATCH_AXES:
        ways *= sizes[name]
    return ways
