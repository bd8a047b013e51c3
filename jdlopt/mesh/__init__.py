"""The device mesh of a run: its axes, its devices, and which array lies where."""

from jdlopt.mesh.activations import model_problems, splitting
from jdlopt.mesh.axes import AXES, BATCH_AXES, batch_ways
from jdlopt.mesh.devices import make_mesh, shape_of
from jdlopt.mesh.fields import MeshFields, axis_sizes, mesh_problems
from jdlopt.mesh.placing import (
    batch_sharding,
    local_rows,
    parameter_sharding,
    put,
    replicated,
    sharding_beside,
)
from jdlopt.mesh.rules import DEFAULTS

__all__ = [
    "AXES",
    "BATCH_AXES",
    "DEFAULTS",
    "MeshFields",
    "axis_sizes",
    "batch_sharding",
    "batch_ways",
    "local_rows",
    "make_mesh",
    "mesh_problems",
    "model_problems",
    "parameter_sharding",
    "put",
    "replicated",
    "shape_of",
    "sharding_beside",
    "splitting",
]
