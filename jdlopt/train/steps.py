"""Many training steps: over examples in memory or batches that come, one by one or in a loop. Pure.

A run's steps and those of a population's trials are these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int32, PyTree

from jdlopt import mesh as meshes
from jdlopt.train.state import TrainState
from jdlopt.train.step import Batch, Measured

Step = Callable[[TrainState, Batch], tuple[TrainState, Measured]]
"""An experiment's `train_step`."""
Trained = tuple[TrainState, dict[str, Array]]
"""The next state, and the values of the steps by name."""
Progress = tuple[Int32[Array, ""], TrainState, dict[str, Array], Bool[Array, ""]]
"""Steps done, the state, the values so far, and whether all of them are finite."""


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["shape"])
@dataclass(frozen=True)
class Flat:
    """Examples of several axes as they lie in device memory: the numbers of each side by side.

    A TPU would lay out pixels of three channels anew, all of them, before each read of some: an
    array of two axes it reads where it lies.

    Attributes:
      values: [examples, numbers of one].
      shape: of an example.
    """

    values: Array | np.ndarray
    shape: tuple[int, ...]

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.values)


def stored(data: Batch) -> dict[str, PyTree]:
    """Returns a dataset as `gather` reads it, each array of more than two axes as `Flat`."""

    def flat(leaf: Array | np.ndarray) -> Array | np.ndarray | Flat:
        return Flat(leaf.reshape(len(leaf), -1), leaf.shape[1:]) if leaf.ndim > 2 else leaf

    return jax.tree.map(flat, dict(data))


def gather(data: Mapping[str, PyTree], examples: Int32[Array, " batch"]) -> Batch:
    """Returns a batch of a dataset that lies in device memory, as `stored` makes it."""

    def rows(leaf: Array | Flat) -> Array:
        if isinstance(leaf, Flat):
            return rows(jnp.asarray(leaf.values)).reshape(len(examples), *leaf.shape)
        return leaf.at[examples].get(mode="promise_in_bounds")

    return jax.tree.map(rows, dict(data), is_leaf=lambda leaf: isinstance(leaf, Flat))


def gathered_step(
    state: TrainState,
    data: Batch,
    examples: Int32[Array, " batch"],
    *,
    train_step: Step,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Measured]:
    """Runs one step on examples of a dataset that lies in device memory.

    Args:
      state: of one training.
      data: the dataset.
      examples: which of them are the batch.
      train_step: of the experiment.
      mesh: shards the batch; None where each device has trainings of its own.
    """
    batch = gather(data, examples)
    if mesh is not None:
        batch = jax.lax.with_sharding_constraint(batch, meshes.batch_sharding(mesh))
    return train_step(state, batch)


def one_step(
    state: TrainState, data: Batch, examples: Array, *, train_step: Step, mesh: Mesh
) -> tuple[TrainState, dict[str, Array]]:
    """Runs one step on gathered examples; its values come back as arrays of length 1."""
    with meshes.splitting(mesh):
        state, measured = gathered_step(state, data, examples[0], train_step=train_step, mesh=mesh)
    return state, {name: value[None] for name, value in measured.items()}


def streamed_step(
    state: TrainState, batch: Batch, *, train_step: Step, mesh: Mesh
) -> tuple[TrainState, dict[str, Array]]:
    """Runs one step on a batch that was read elsewhere."""
    with meshes.splitting(mesh):
        state, measured = train_step(state, batch)
    return state, {name: value[None] for name, value in measured.items()}


def streamed_loop(
    state: TrainState, batch: Batch, count: Int32[Array, ""], *, train_step: Step, mesh: Mesh
) -> tuple[TrainState, dict[str, Array]]:
    """Runs ``count`` steps, traced, on one batch: given 1, what `streamed_step` does.

    What XLA's CPU backend compiles in a loop, it runs on one core, and so leaves the others to what
    reads the next batches.
    """
    step = partial(streamed_step, train_step=train_step, mesh=mesh)
    shapes = jax.eval_shape(step, state, batch)[1]
    empty = {name: jnp.full(shape.shape, jnp.nan, shape.dtype) for name, shape in shapes.items()}

    def body(_: Array, carry: Trained) -> Trained:
        return step(carry[0], batch)

    return jax.lax.fori_loop(0, count, body, (state, empty))


def run_steps(
    step: Callable[[TrainState, Int32[Array, " batch"]], tuple[TrainState, Measured]],
    state: TrainState,
    examples: Int32[Array, "steps batch"],
    count: Int32[Array, ""],
) -> tuple[TrainState, dict[str, Array]]:
    """Runs ``count`` steps, traced, up to ``len(examples)``, and stops at what isn't finite.

    A run's dispatches and a population's trials, one after the other, are this loop. One program
    serves every count, so how a training is cut into dispatches never changes its numbers.

    Returns:
      The next state, and values by name [steps]; NaN where no step was made.
    """
    shapes = jax.eval_shape(step, state, examples[0])[1]
    buffers = {
        name: jnp.full((examples.shape[0],), jnp.nan, shape.dtype) for name, shape in shapes.items()
    }

    def unfinished(carry: Progress) -> Array:
        done, _, _, finite = carry
        return (done < count) & finite

    def body(carry: Progress) -> Progress:
        done, state, buffers, _ = carry
        state, measured = step(state, examples[done])
        buffers = {name: buffers[name].at[done].set(measured[name]) for name in buffers}
        finite = jnp.isfinite(measured["loss"]) & jnp.isfinite(measured["grad_norm"])
        return done + 1, state, buffers, finite

    _, state, buffers, _ = jax.lax.while_loop(
        unfinished, body, (jnp.zeros((), jnp.int32), state, buffers, jnp.ones((), bool))
    )
    return state, buffers


def many_steps(
    state: TrainState,
    data: Batch,
    examples: Int32[Array, "steps batch"],
    count: Int32[Array, ""],
    *,
    train_step: Step,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, Array]]:
    """Runs steps of one training in one dispatch, as `run_steps` does."""

    def step(state: TrainState, chosen: Array) -> tuple[TrainState, Measured]:
        with meshes.splitting(mesh):
            return gathered_step(state, data, chosen, train_step=train_step, mesh=mesh)

    return run_steps(step, state, examples, count)
