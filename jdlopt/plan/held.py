"""What a chip of a mesh holds of a training's state, and what it shares of its parameters. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh
from jaxtyping import PyTree

from jdlopt.config import raise_problems
from jdlopt.mesh import sharding_beside
from jdlopt.mesh.axes import AXES, BATCH_AXES, FSDP
from jdlopt.mesh.rules import Rule, Split, placed
from jdlopt.plan.traced import Placing
from jdlopt.plan.walked import AGAIN, BACKWARD, FORWARD, Parameter


@dataclass(frozen=True)
class Held:
    """What a chip holds, in bytes.

    Attributes:
      parameter_bytes, trained_bytes: of all parameters, and of those that are trained.
      beside: of what else the state keeps, by what it is.
      share: of the bytes of parameters that it holds.
      tensor_ways: into how many parts axes other than FSDP's split parameters, on average.
      gathered: that FSDP puts together in the forward and in the backward pass, as they are used.
      scattered: of gradients of those parameters, before each chip has its own part.
      gradients: of gradients that a chip has its own part of; ``whole_gradients``: of those that
        FSDP leaves whole.
      update_bytes: that an update reads and writes.
    """

    parameter_bytes: float
    trained_bytes: float
    beside: Mapping[str, float]
    share: float
    tensor_ways: float
    gathered: float
    scattered: float
    gradients: float
    whole_gradients: float
    update_bytes: float


def whole_model(rules: Sequence[Rule]) -> Placing:
    """Returns which axes other than the batch's split which parameters, were all of them used."""
    sizes = {name: 1 if name in BATCH_AXES else 2 for name in AXES}

    def splits(shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Split]:
        return placed(shapes, sizes, rules).splits

    return splits


def held_on(
    parameters: Sequence[Parameter],
    params: PyTree,
    kept: Mapping[str, PyTree],
    sizes: Mapping[str, int],
    rules: Sequence[Rule],
) -> Held:
    """Returns what a chip holds.

    Args:
      parameters: all of them, the trained ones first.
      params: shapes of the trained ones.
      kept: shapes of what else the state keeps.
      sizes: devices along each axis.
      rules: ``mesh.rules``.

    Raises:
      ConfigError: the parameters can't be split so.
    """
    found = placed({one.path: one.shape for one in parameters}, sizes, rules)
    raise_problems(found.problems)
    trained = len(jax.tree.leaves(params))
    held = whole = mine = gathered = scattered = mean = left = unsplit = 0.0
    for index, one in enumerate(parameters):
        split = jax.tree.leaves(found.splits[one.path])
        other = math.prod(sizes[axis] for axis in split if axis != FSDP)
        ways = math.prod(sizes[axis] for axis in split)
        size = one.numbers * one.itemsize
        held += size / ways
        whole += size
        unsplit += size / other
        used = one.numbers * one.used / other
        if FSDP in split:
            gathered += used * ((FORWARD in one.phases) + bool({BACKWARD, AGAIN} & one.phases))
        if index >= trained:
            continue
        mine += size / ways
        if FSDP in split:
            scattered += used
            mean += used / sizes[FSDP]
        else:
            left += used
    mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes))
    others = {name: _local(tree, params, mesh, rules) for name, tree in kept.items()}
    return Held(
        parameter_bytes=held,
        trained_bytes=mine,
        beside=others,
        share=held / max(whole, 1.0),
        tensor_ways=whole / max(unsplit, 1.0),
        gathered=gathered,
        scattered=scattered,
        gradients=mean,
        whole_gradients=left,
        update_bytes=3 * mine + 2 * sum(others.values()),
    )


def _local(tree: PyTree, params: PyTree, mesh: AbstractMesh, rules: Sequence[Rule]) -> float:
    """The bytes of a tree that lie on a device of a mesh."""
    places = jax.tree.leaves(sharding_beside(mesh, tree, params, rules))
    total = 0.0
    for leaf, place in zip(jax.tree.leaves(tree), places, strict=True):
        ways = math.prod(mesh.shape[axis] for axis in jax.tree.leaves(tuple(place.spec)))
        total += leaf.size * leaf.dtype.itemsize / ways
    return total
