"""The programs of a training, lowered for devices that may not be here; no array is made."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from jdlopt import mesh as meshes
from jdlopt.data import feed
from jdlopt.errors import ConfigError
from jdlopt.train import memory
from jdlopt.train.evaluate import batch_size_for, step_on
from jdlopt.train.experiment import Experiment
from jdlopt.train.program import capacity_of
from jdlopt.train.state import TrainState, Weights

KINDS = {"params": "parameters", "opt_state": "optimizer state",
         "average": "averaged parameters", "model_state": "model state"}  # fmt: skip
"""What the large fields of a state are in words."""
DATA, OTHER = "data", "other arguments"


class ToCompile(NamedTuple):
    """A lowered program.

    Attributes:
      name: ``training`` or ``evaluation``.
      lowered: the program.
      steps: most steps in one dispatch; more than 1: they are a loop.
      examples: in a step, over all devices.
      arguments: bytes of its arguments on a device, by what they are.
      beside: bytes on a device of what is no argument of it, and lies there while it runs.
    """

    name: str
    lowered: jax.stages.Lowered
    steps: int
    examples: int
    arguments: dict[str, int]
    beside: int


def lower_training(experiment: Experiment, mesh: Mesh) -> ToCompile:
    """Returns the program that `fit` would train with.

    Data that are kept in memory are trained on in a loop of steps, as accelerators do best; where
    ``train.steps_per_dispatch`` is 1, and where batches are streamed, a step is a program.

    Raises:
      ConfigError: what is trained on is only known once a part of the run is made.
    """
    config = experiment.config
    if config.train.cache_features:
        raise ConfigError(
            "train.cache_features: what the head is trained on is computed by the run, so that it "
            "can't be planned. Set it to False."
        )
    every = config.train.checkpoint_every
    longest = min(experiment.eval_every, every) if every else experiment.eval_every
    steps = 1 if experiment.streams else capacity_of(config.train.steps_per_dispatch, longest)
    state, batch = memory.step_arguments(experiment, mesh)
    lowered = memory.lowered_step(experiment, mesh, steps)
    kept = 0
    if feed.fits(experiment.data.nbytes("validation")):
        kept = -(-experiment.data.nbytes("validation") // meshes.batch_ways(mesh.shape))
    size = config.data.batch_size
    arguments = {**_bytes_of(state), DATA: device_bytes(batch)}
    return ToCompile("training", lowered, steps, size, arguments, kept)


def lower_evaluation(experiment: Experiment, mesh: Mesh) -> ToCompile:
    """Returns the program that evaluates a batch of the validation split as `fit` does."""
    state, batch = memory.step_arguments(experiment, mesh)
    shapes = jax.eval_shape(experiment.weights, state)
    places = jax.tree.map(lambda _: meshes.replicated(mesh), shapes)
    rules = experiment.config.mesh.rules
    places = places.replace(
        params=meshes.parameter_sharding(mesh, shapes.params, rules),
        model_state=meshes.sharding_beside(mesh, shapes.model_state, shapes.params, rules),
    )
    placed = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )
    size = batch_size_for(experiment, "validation", mesh)
    split = meshes.batch_sharding(mesh)
    given = memory.shapes_of_batch(experiment, size)
    given["weights"] = jax.ShapeDtypeStruct((size,), np.float32)
    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split), given
    )
    function = jax.jit(step_on(mesh, experiment), out_shardings=meshes.replicated(mesh))
    lowered = function.lower(placed, given)
    # the state lies there all the while, and what it is trained on where that is kept in memory
    beside = device_bytes(state) + (0 if experiment.streams else device_bytes(batch))
    arguments = {**_bytes_of(placed), DATA: device_bytes(given)}
    return ToCompile("evaluation", lowered, 1, size, arguments, beside)


def _bytes_of(tree: TrainState | Weights) -> dict[str, int]:
    """The bytes of a state's fields on a device, by what they are."""
    found = {words: device_bytes(getattr(tree, name, ())) for name, words in KINDS.items()}
    return {**found, OTHER: device_bytes(tree) - sum(found.values())}


def device_bytes(tree: PyTree) -> int:
    """Returns the bytes of shapes with shardings, on one device."""
    return sum(map(_leaf_bytes, jax.tree.leaves(tree)))


def _leaf_bytes(leaf: Any) -> int:
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 8 * int(np.prod(shape, dtype=int))  # two numbers of 32 bits
    return int(np.prod(shape, dtype=int)) * leaf.dtype.itemsize
