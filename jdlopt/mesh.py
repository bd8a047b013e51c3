"""The device mesh of a run and the rules that place arrays on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from jdlopt.config import Count, Range
from jdlopt.errors import ConfigError

BATCH_AXES = ("data", "fsdp")
SMALLEST_SHARDED = 1024
"""Arrays of fewer elements are replicated: gathering them costs more than they weigh."""


@dataclass(frozen=True)
class MeshFields:
    """The ``mesh`` section: devices along each axis; ``data = -1`` takes all that are left."""

    data: Annotated[int, Range(-1)] = -1
    fsdp: Count = 1
    tensor: Count = 1


def mesh_problems(fields: MeshFields, batch_size: int, num_devices: int) -> list[str]:
    """Returns what is wrong with a mesh for a batch size and a number of devices, in words."""
    data, fsdp, tensor = fields.data, fields.fsdp, fields.tensor
    if data == 0:
        return ["mesh.data: must be at least 1, or -1 for all devices that are left, found 0."]
    if tensor != 1:
        return [f"mesh.tensor: only 1 is supported so far, found {tensor}."]
    if data > 0 and data * fsdp > num_devices:
        return [
            f"mesh: data × fsdp = {data} × {fsdp} needs {data * fsdp} devices; {num_devices} found."
        ]
    if fsdp > num_devices:
        return [f"mesh.fsdp: {fsdp} is more than the {num_devices} devices found."]
    ways = (data if data > 0 else num_devices // fsdp) * fsdp
    if batch_size % ways:
        below = batch_size // ways * ways
        sizes = " or ".join(str(size) for size in (below, below + ways) if size)
        fitting = [n for n in range(1, ways // fsdp) if not batch_size % (n * fsdp)]
        fewer = max(fitting, default=0)
        remedy = f", or train on {fewer * fsdp} of them, mesh.data={fewer}" if fewer else ""
        return [
            f"data.batch_size: {batch_size} can't be split evenly over mesh.data × mesh.fsdp "
            f"= {ways} devices. Set data.batch_size to {sizes}{remedy}."
        ]
    return []


def make_mesh(fields: MeshFields, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh with axes ``data`` and ``fsdp``.

    Args:
      fields: the ``mesh`` section.
      devices: what it is made of, such as those of a topology that is not here; by default all that
        there are.

    Raises:
      ConfigError: there are not enough devices.
    """
    devices = jax.devices() if devices is None else devices
    fsdp = fields.fsdp
    data = fields.data if fields.data > 0 else len(devices) // fsdp
    if data * fsdp > len(devices) or data < 1:
        raise ConfigError(f"mesh: data × fsdp = {data} × {fsdp}; {len(devices)} devices found.")
    return Mesh(
        np.asarray(devices[: data * fsdp], object).reshape(data, fsdp),
        BATCH_AXES,
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding of a batch, split over both mesh axes along one of its own."""
    return NamedSharding(mesh, P(*([None] * axis), BATCH_AXES))


def leaf_spec(shape: tuple[int, ...], fsdp: int) -> P:
    """Returns how FSDP splits one array: its largest axis that divides evenly, if it is big enough.

    Example:
      >>> leaf_spec((128, 256), fsdp=4) == P(None, "fsdp")
      True
      >>> leaf_spec((10,), fsdp=4) == P()
      True
    """
    if fsdp == 1 or int(np.prod(shape)) < SMALLEST_SHARDED:
        return P()
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if not divisible:
        return P()
    widest = max(divisible, key=lambda axis: shape[axis])
    return P(*([None] * widest), "fsdp")


def parameter_sharding(mesh: Mesh, tree: PyTree) -> PyTree:
    """Returns the sharding of every array of a pytree by `leaf_spec`."""
    fsdp = mesh.shape["fsdp"]
    return jax.tree.map(lambda leaf: NamedSharding(mesh, leaf_spec(leaf.shape, fsdp)), tree)


def put(tree: PyTree, sharding: NamedSharding) -> Any:
    """Returns host arrays as global arrays; every process must hold the same values."""

    def place(leaf: object) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree)


def local_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """Returns which rows of a global batch this process's devices hold, in order."""
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    pieces = [index[0].indices(batch_size) for index in slices if index is not None]
    rows = {row for piece in pieces for row in range(*piece)}
    return np.array(sorted(rows), np.int64)
