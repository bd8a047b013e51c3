"""Which device stands where in a mesh: neighbours along an axis are neighbours in the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from jdlopt.errors import ConfigError
from jdlopt.mesh.axes import AXES
from jdlopt.mesh.fields import MeshFields, axis_sizes


def make_mesh(fields: MeshFields, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of a ``mesh`` section, with every axis of `AXES`.

    Args:
      fields: the section.
      devices: what it is made of, such as those of a topology that is not here; by default all that
        there are.

    Raises:
      ConfigError: there are not enough devices, or no axis can be split over the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(fields, len(devices))
    total = math.prod(sizes.values())
    if total > len(devices) or total < 1:
        asked = " × ".join(f"{name} {size}" for name, size in sizes.items() if size != 1)
        raise ConfigError(f"mesh: {asked} can't be made of the {len(devices)} devices found.")
    return Mesh(
        arranged(tuple(sizes.values()), devices[:total]),
        tuple(AXES),
        axis_types=(AxisType.Auto,) * len(AXES),
    )


def shape_of(fields: MeshFields, num_devices: int) -> AbstractMesh:
    """Returns the mesh of a section without its devices, as tracing needs it."""
    sizes = axis_sizes(fields, num_devices)
    return AbstractMesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)
    )


def arranged(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Returns devices as an array of a shape, so that collectives along its axes are short.

    Within a slice, `jax.experimental.mesh_utils` lays axes along the links between chips. Several
    slices, which are joined by a slower network, split the outermost axes.

    Args:
      shape: devices along each axis of `AXES`.
      devices: as many.

    Raises:
      ConfigError: no axis can be split over the slices.
    """
    slices = len({getattr(device, "slice_index", 0) or 0 for device in devices})
    if slices == 1 or devices[0].platform != "tpu":
        return _within(shape, devices)
    outer, inner, left = [], [], slices
    for size in shape:
        ways = math.gcd(size, left)
        outer.append(ways)
        inner.append(size // ways)
        left //= ways
    if left > 1:
        named = ", ".join(f"mesh.{name}={size}" for name, size in zip(AXES, shape) if size > 1)
        raise ConfigError(
            f"mesh.data: the devices are of {slices} slices, which {named or 'one device'} can't "
            f"be split over. Make mesh.data a multiple of {slices}."
        )
    return mesh_utils.create_hybrid_device_mesh(
        inner, outer, devices, allow_split_physical_axes=True
    )


def _within(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Returns the devices of one slice as an array; a part of one as they are numbered."""
    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        # chips that are no box have no rings to lie along; and of some sizes, such as 32 of a slice
        # of 16×20×28, jax (0.10.2) finds no factors on its dimensions
        flat = np.empty(len(devices), object)
        flat[:] = devices
        return flat.reshape(shape)
