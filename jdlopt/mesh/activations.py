"""Activations split over a mesh, by the names that models give to their axes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax
from jax.extend.core import ClosedJaxpr
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import PyTree

from jdlopt.mesh.axes import ACTIVATIONS, AXES, PIPELINE
from jdlopt.mesh.fields import MeshFields
from jdlopt.mesh.placing import shapes_of
from jdlopt.mesh.rules import placed
from jdlopt.models.summary import operations_of

_ALL_THE_SAME = (
    "all compute the same. Leave it out, or name axes of the model's activations "
    "(jdlopt.models.axes)."
)
_IDLE = {
    "expert": "share the batch alone. Take mesh.data for that, or give the model experts "
    "(model.experts).",
    PIPELINE: "all compute the same. Set model.scan_layers=True if it is a transformer, or take "
    "mesh.fsdp.",
}
"""What devices along an axis would do that a model has no use for, and what to do about it."""


@contextlib.contextmanager
def splitting(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Has activations of what is traced within split as a mesh and their names say.

    A batch that is split over ``data`` alone needs no words: nothing changes then.

    Args:
      mesh: the devices, or its shape.
    """
    if all(size == 1 for name, size in mesh.shape.items() if name != "data"):
        yield
        return
    rules = tuple(ACTIVATIONS.items())
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
        yield


def model_problems(
    step: ClosedJaxpr, params: PyTree, fields: MeshFields, sizes: Mapping[str, int]
) -> list[str]:
    """Returns what of a mesh a model has no use for, or can't be split by, in words.

    Args:
      step: its training step, traced within `splitting`.
      params: its parameters, or their shapes.
      fields: the ``mesh`` section.
      sizes: devices along each axis.
    """
    found = placed(shapes_of(params), sizes, fields.rules)
    used = set(jax.tree.leaves(list(found.splits.values())))
    for equation, _, _ in operations_of(step.jaxpr):
        if equation.primitive.name == "sharding_constraint":
            spec = equation.params["sharding"].spec
            named = [axis for axis in jax.tree.leaves(tuple(spec)) if axis in AXES]
            used |= {axis for axis in named if not AXES[axis].batch}
    idle = [
        name
        for name, axis in AXES.items()
        if sizes[name] > 1 and not axis.any_model and name not in used
    ]
    return found.problems + [
        f"mesh.{name}: nothing of this model is split over it: its {sizes[name]} devices would "
        f"{_IDLE.get(name, _ALL_THE_SAME)}"
        for name in idle
        if not any(problem.startswith(f"mesh.{name}") for problem in found.problems)
    ]
