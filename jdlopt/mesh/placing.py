"""Which array lies where: parameters by rules, what is kept beside them like them, batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from jdlopt.config import raise_problems
from jdlopt.mesh.axes import BATCH_AXES
from jdlopt.mesh.rules import Rule, Split, placed, rule_of, split_of
from jdlopt.optim.groups import path_name


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding of a batch, split over `BATCH_AXES` along one of its own."""
    return NamedSharding(mesh, P(*([None] * axis), BATCH_AXES))


def parameter_sharding(mesh: Mesh, params: PyTree, rules: Sequence[Rule] = ()) -> PyTree:
    """Returns the sharding of every parameter, as `jdlopt.mesh.rules.placed` says.

    Args:
      mesh: the devices.
      params: arrays or their shapes.
      rules: ``mesh.rules``.

    Raises:
      ConfigError: rules contradict each other, match nothing or leave too much unplaced, or a
        width can't be split evenly; with every path that it is about.
    """
    found = placed(shapes_of(params), mesh.shape, rules)
    raise_problems(found.problems)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _named(mesh, found.splits[path_name(path)]), params
    )


def sharding_beside(
    mesh: Mesh | AbstractMesh, tree: PyTree, params: PyTree, rules: Sequence[Rule] = ()
) -> PyTree:
    """Returns where the arrays lie that are kept beside parameters: moments, averages, statistics.

    An array whose path ends as a parameter's, and has its shape, lies as that one; one of some of
    its dimensions, as a factored moment has, is split as they are. Others are split by the rule
    that matches their own path, or by FSDP alone.

    Args:
      mesh: the devices.
      tree: such arrays, or their shapes.
      params: the parameters, or their shapes.
      rules: ``mesh.rules``.
    """
    shapes = shapes_of(params)
    splits = placed(shapes, mesh.shape, rules).splits

    def beside(path: tuple[object, ...], leaf: Any) -> NamedSharding:
        name = path_name(path)
        parts = name.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        owner = next((end for end in ends if end in shapes), None)
        if owner is not None:
            split = _of_dimensions(leaf.shape, shapes[owner], splits[owner])
            if split is not None:
                return _named(mesh, split)
        rule = rule_of(name, len(leaf.shape), rules)
        return _named(mesh, split_of(name, leaf.shape, mesh.shape, rule))

    return jax.tree_util.tree_map_with_path(beside, tree)


def _of_dimensions(shape: tuple[int, ...], whole: tuple[int, ...], split: Split) -> Split | None:
    """How an array of some dimensions of another one is split; None: it is no such array."""
    found: list[str | tuple[str, ...] | None] = []
    place = 0
    for size in shape:
        while place < len(whole) and whole[place] != size:
            place += 1
        if place == len(whole):
            return None
        found.append(split[place])
        place += 1
    return tuple(found)


def shapes_of(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a pytree, by path."""
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _named(mesh: Mesh | AbstractMesh, split: Split) -> NamedSharding:
    while split and split[-1] is None:
        split = split[:-1]
    return NamedSharding(mesh, P(*split))


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
