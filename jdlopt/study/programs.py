"""A population's compiled programs: many trials of one structure advance by some steps.

Three formulations of the same `train_step`, equal in what they compute:

- ``vmap``: all trials take a step together, as one wider program; what fills an accelerator.
- ``scan``: in one dispatch, one trial after the other takes all its steps; on a CPU, where vmap
  saves no arithmetic, its parameters stay in the cache meanwhile.
- ``each``: one dispatch a step, one trial after the other; for models whose single operations use
  all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int32

from jdlopt.study.structure import Structure
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.program import gather
from jdlopt.train.state import CHANGED, TrainState
from jdlopt.train.step import Batch, Collected, Measured

FORMULATIONS = ("vmap", "scan", "each")


class Programs(NamedTuple):
    """How a population of a fixed width is trained and evaluated.

    Attributes:
      formulation: ``vmap``, ``scan`` or ``each``.
      advance: ``(states, examples [width, steps, batch], count, active) →
        (states, values by name [width, steps])``; donates the states.
      evaluate: ``(states, examples [width, batches, batch], weights, active) →
        collected``, each leaf [width, batches, …].
    """

    formulation: str
    advance: Callable[..., tuple[TrainState, dict[str, Array]]]
    evaluate: Callable[..., Any]


def member_step(
    state: TrainState, data: Batch, chosen: Int32[Array, " batch"], *, experiment: Experiment
) -> tuple[TrainState, Measured]:
    """One trial's step on examples of the data of its structure."""
    return experiment.train_step(state, gather(data, chosen))


def member_eval(
    state: TrainState,
    data: Batch,
    examples: Int32[Array, "batches batch"],
    weights: Float[Array, "batches batch"],
    *,
    experiment: Experiment,
) -> Collected:
    """What the metrics need of one trial's validation split, batch by batch."""
    evaluated = experiment.weights(state)

    def one(batch: tuple[Array, Array]) -> Collected:
        chosen, weight = batch
        return experiment.evaluate_step(evaluated, {**gather(data, chosen), "weights": weight})

    return lax.map(one, (examples, weights))


def _taken(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _put(states: TrainState, index: Any, state: TrainState) -> TrainState:
    """Writes a trial's state back; what no step changes is not touched."""
    changed = {
        name: jax.tree.map(
            lambda leaf, value: leaf.at[index].set(value),
            getattr(states, name),
            getattr(state, name),
        )
        for name in CHANGED
    }
    return states.replace(**changed)


def _buffers(shapes: Mapping[str, Any], *leading: int) -> dict[str, Array]:
    return {
        name: jnp.full((*leading, *shape.shape), jnp.nan, shape.dtype)
        for name, shape in shapes.items()
    }


def together(
    states: TrainState, data: Any, examples: Any, count: Any, *, experiment: Experiment
) -> tuple[TrainState, dict[str, Array]]:
    """All trials take ``count`` steps side by side."""
    step = jax.vmap(partial(member_step, experiment=experiment), in_axes=(0, None, 0))
    shapes = jax.eval_shape(step, states, data, examples[:, 0])[1]
    buffers = _buffers(shapes, examples.shape[1])

    def body(done: Any, carry: Any) -> Any:
        states, buffers = carry
        chosen = lax.dynamic_index_in_dim(examples, done, axis=1, keepdims=False)
        states, measured = step(states, data, chosen)
        return states, {name: buffers[name].at[done].set(measured[name]) for name in buffers}

    states, buffers = lax.fori_loop(0, count, body, (states, buffers))
    return states, {name: buffer.swapaxes(0, 1) for name, buffer in buffers.items()}


def in_turn(
    states: TrainState,
    data: Any,
    examples: Int32[Array, "width steps batch"],
    count: Any,
    order: Int32[Array, " width"],
    active: Any,
    *,
    experiment: Experiment,
) -> tuple[TrainState, dict[str, Array]]:
    """The first ``active`` trials of ``order`` take ``count`` steps, one trial after the other.

    Both numbers are traced: trials that end early cost nothing and compile nothing.
    """
    width, capacity = examples.shape[:2]
    step = partial(member_step, experiment=experiment)
    shapes = jax.eval_shape(step, _taken(states, 0), data, examples[0, 0])[1]

    def trial(turn: Any, carry: Any) -> Any:
        states, buffers = carry
        index = order[turn]

        def unfinished(inner: Any) -> Array:
            done, _, _, finite = inner
            return (done < count) & finite

        def body(inner: Any) -> Any:
            done, state, values, _ = inner
            state, measured = step(state, data, examples[index, done])
            values = {name: values[name].at[done].set(measured[name]) for name in values}
            finite = jnp.isfinite(measured["loss"]) & jnp.isfinite(measured["grad_norm"])
            return done + 1, state, values, finite

        start = (jnp.int32(0), _taken(states, index), _buffers(shapes, capacity), jnp.bool_(True))
        _, state, values, _ = lax.while_loop(unfinished, body, start)
        buffers = {name: buffers[name].at[index].set(values[name]) for name in buffers}
        return _put(states, index, state), buffers

    return lax.fori_loop(0, active, trial, (states, _buffers(shapes, width, capacity)))


def evaluate_in_turn(
    states: TrainState,
    data: Any,
    examples: Any,
    weights: Any,
    order: Any,
    active: Any,
    *,
    experiment: Experiment,
) -> Any:
    """Evaluates the first ``active`` trials of ``order``, one after the other."""
    one = partial(member_eval, experiment=experiment)
    shapes = jax.eval_shape(one, _taken(states, 0), data, examples[0], weights[0])
    width = examples.shape[0]
    collected = jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape), leaf.dtype), shapes)

    def trial(turn: Any, collected: Any) -> Any:
        index = order[turn]
        found = one(_taken(states, index), data, examples[index], weights[index])
        return jax.tree.map(lambda leaf, value: leaf.at[index].set(value), collected, found)

    return lax.fori_loop(0, active, trial, collected)


def trial_mesh(width: int) -> Mesh | None:
    """The devices that share a population side by side, or None where one device holds it all."""
    devices = jax.local_devices()
    if len(devices) == 1 or width % len(devices):
        return None
    return Mesh(np.array(devices), ("trials",))


def compile_programs(
    structure: Structure,
    formulation: str,
    states: TrainState,
    examples: np.ndarray,
    validation: np.ndarray,
    weights: np.ndarray,
    compile: Compiler,
) -> Programs:
    """Compiles one formulation for the shapes of a population.

    Args:
      structure: what its trials share.
      formulation: ``vmap``, ``scan`` or ``each``.
      states: the stacked states.
      examples: training examples by trial and step, as large as they will ever be.
      validation, weights: the evaluation batches by trial.
      compile: does the compiling.
    """
    experiment = structure.parts
    data, width, zero = structure.data, len(examples), np.int32(0)
    order = np.arange(width, dtype=np.int32)
    if formulation == "vmap":
        mesh = trial_mesh(width)
        if mesh is not None:
            split = NamedSharding(mesh, P("trials"))
            everywhere = NamedSharding(mesh, P())
            states, validation, weights = jax.device_put((states, validation, weights), split)
            data = jax.device_put(data, everywhere)
        advance = jax.jit(partial(together, experiment=experiment), donate_argnums=0)
        one = partial(member_eval, experiment=experiment)
        evaluate = jax.jit(jax.vmap(one, in_axes=(0, None, 0, 0)))
        programs = compile.together(
            [
                advance.lower(states, data, examples, zero),
                evaluate.lower(states, data, validation, weights),
            ]
        )

        def placed(tree: Any) -> Any:
            return tree if mesh is None else jax.device_put(tree, split)

        return Programs(
            formulation,
            lambda states, examples, count, active: programs[0](
                placed(states), data, examples, np.int32(count)
            ),
            lambda states, examples, weights, active: programs[1](
                states, data, placed(examples), placed(weights)
            ),
        )
    evaluate = jax.jit(partial(evaluate_in_turn, experiment=experiment))
    lowered = [evaluate.lower(states, data, validation, weights, order, zero)]
    if formulation == "scan":
        advance = jax.jit(partial(in_turn, experiment=experiment), donate_argnums=0)
        lowered.append(advance.lower(states, data, examples, zero, order, zero))
    else:
        step = jax.jit(partial(member_step, experiment=experiment), donate_argnums=0)
        state = jax.eval_shape(lambda: _taken(states, 0))
        lowered.append(step.lower(state, data, examples[0, 0]))
    programs = compile.together(lowered)

    def listed(active: np.ndarray) -> tuple[np.ndarray, np.int32]:
        order = np.zeros(width, np.int32)
        order[: len(active)] = active
        return order, np.int32(len(active))

    def evaluate_all(states: Any, examples: Any, weights: Any, active: Any) -> Any:
        return programs[0](states, data, examples, weights, *listed(active))

    if formulation == "scan":
        return Programs(
            formulation,
            lambda states, examples, count, active: programs[1](
                states, data, examples, np.int32(count), *listed(active)
            ),
            evaluate_all,
        )
    put = jax.jit(_put, donate_argnums=0)
    take = jax.jit(_taken)

    def each(states: Any, examples: Any, count: int, active: Any) -> Any:
        values: dict[str, list[Any]] = {}
        for index in active:
            state = take(states, index)
            rows = []
            for done in range(count):
                state, measured = programs[1](state, data, examples[index, done])
                rows.append(measured)
            states = put(states, index, state)
            for name in rows[0]:
                values.setdefault(name, []).append(jnp.stack([row[name] for row in rows]))
        found = {}
        for name, some in values.items():
            full = np.full((width, examples.shape[1]), np.nan, np.float32)
            full[np.asarray(active), :count] = np.stack(some)
            found[name] = full
        return states, found

    return Programs(formulation, each, evaluate_all)
