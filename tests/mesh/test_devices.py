"""Where devices stand: every axis is there, and slices split the outermost axes."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.mesh import AXES, MeshFields, make_mesh
from jdlopt.mesh.devices import arranged


def chips(side, slices=1):
    """Chips of a kind that no table knows, in square slices."""
    return [
        SimpleNamespace(
            id=number, platform="tpu", device_kind="TPU made up", process_index=part,
            slice_index=part, core_on_chip=0, coords=(number % side, number // side, 0),
        )
        for part in range(slices)
        for number in range(side * side)
    ]  # fmt: skip


def test_a_mesh_has_every_axis_and_takes_the_devices_that_it_is_given():
    mesh = make_mesh(MeshFields(fsdp=2, tensor=2))
    assert dict(mesh.shape) == {
        "data": 2, "fsdp": 2, "pipeline": 1, "expert": 1, "sequence": 1, "tensor": 2,
    }  # fmt: skip
    assert tuple(mesh.axis_names) == tuple(AXES)
    four = make_mesh(MeshFields(fsdp=2), jax.devices()[4:])
    assert set(four.devices.flat) == set(jax.devices()[4:])
    with pytest.raises(ConfigError, match="data 4 can't be made of the 2 devices"):
        make_mesh(MeshFields(data=4), jax.devices()[:2])


def test_neighbours_along_an_axis_are_neighbours_in_a_slice():
    found = arranged((4, 4, 1, 1), chips(4))
    for line in (*found[:, :, 0, 0], *found[:, :, 0, 0].T):
        moved = np.abs(np.diff([chip.coords for chip in line], axis=0)).sum(axis=1)
        assert (moved == 1).all()


def test_a_slice_that_no_axis_lies_along_is_taken_as_it_is_numbered():
    large = [
        SimpleNamespace(
            id=number, platform="tpu", device_kind="TPU made up", process_index=0,
            slice_index=0, core_on_chip=0, coords=coords,
        )
        for number, coords in enumerate(np.ndindex(16, 20, 28))
    ]  # fmt: skip
    found = arranged((140, 64, 1, 1), large)  # 64 of 16×20×28: jax finds no way
    assert found.shape == (140, 64, 1, 1)
    assert [chip.id for chip in found.flat] == list(range(16 * 20 * 28))


def test_slices_split_the_outermost_axis_that_they_divide():
    found = arranged((4, 2, 1, 1), chips(2, slices=2))
    assert {chip.slice_index for chip in found[:2].flat} == {0}
    assert {chip.slice_index for chip in found[2:].flat} == {1}
    with pytest.raises(ConfigError, match="2 slices"):
        arranged((1, 1, 1, 3), [chips(2, slices=2)[number] for number in (0, 1, 4)])
