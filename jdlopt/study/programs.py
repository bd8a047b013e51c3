"""A population's compiled programs: many trials of one structure advance by some steps.

Three execution modes of the same `train_step`, equal in what they compute:

- ``vmap``: all trials take a step together, as one wider program; what fills an accelerator.
- ``scan``: in one dispatch, one trial after the other takes all its steps; on a CPU, where vmap
  saves no arithmetic, its parameters stay in the cache meanwhile.
- ``each``: one dispatch a step, one trial after the other; for models whose single operations use
  all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, PyTree

from jdlopt.study.layout import TRIALS, WHOLE, Layout
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import CHANGED, TrainState
from jdlopt.train.step import Batch, Collected, Measured
from jdlopt.train.steps import gather, gathered_step, run_steps

Tree = TypeVar("Tree", bound=PyTree)
Index = Int32[Array, ""] | int
Carry = tuple[TrainState, dict[str, Array]]
"""What a loop over steps or trials hands on: the states, and the values so far."""


class Programs(NamedTuple):
    """How a population of a fixed width is trained and evaluated.

    Attributes:
      execution_mode: ``vmap``, ``scan`` or ``each``.
      advance: ``(states, examples [width, steps, batch], count, active) →
        (states, values by name [width, steps])``; donates the states.
      evaluate: ``(states, examples [width, batches, batch], weights, active) →
        collected``, each leaf [width, batches, …].
    """

    execution_mode: str
    advance: Callable[..., tuple[TrainState, Mapping[str, Array | np.ndarray]]]
    evaluate: Callable[..., Collected]


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


def _taken(tree: Tree, index: Index) -> Tree:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _put(states: TrainState, index: Index, state: TrainState) -> TrainState:
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


def _buffers(shapes: Mapping[str, jax.ShapeDtypeStruct], *leading: int) -> dict[str, Array]:
    return {
        name: jnp.full((*leading, *shape.shape), jnp.nan, shape.dtype)
        for name, shape in shapes.items()
    }


def together(
    states: TrainState,
    data: Batch,
    examples: Int32[Array, "width steps batch"],
    count: Int32[Array, ""],
    *,
    experiment: Experiment,
) -> tuple[TrainState, dict[str, Array]]:
    """All trials take ``count`` steps side by side."""
    step = jax.vmap(partial(gathered_step, train_step=experiment.train_step), in_axes=(0, None, 0))
    shapes = jax.eval_shape(step, states, data, examples[:, 0])[1]
    buffers = _buffers(shapes, examples.shape[1])

    def body(done: Index, carry: Carry) -> Carry:
        states, buffers = carry
        chosen = lax.dynamic_index_in_dim(examples, done, axis=1, keepdims=False)
        states, measured = step(states, data, chosen)
        return states, {name: buffers[name].at[done].set(measured[name]) for name in buffers}

    states, buffers = lax.fori_loop(0, count, body, (states, buffers))
    return states, {name: buffer.swapaxes(0, 1) for name, buffer in buffers.items()}


def in_turn(
    states: TrainState,
    data: Batch,
    examples: Int32[Array, "width steps batch"],
    count: Int32[Array, ""],
    order: Int32[Array, " width"],
    active: Int32[Array, ""],
    *,
    experiment: Experiment,
) -> tuple[TrainState, dict[str, Array]]:
    """The first ``active`` trials of ``order`` take ``count`` steps, one trial after the other.

    Both numbers are traced: trials that end early cost nothing and compile nothing.
    """
    width, capacity = examples.shape[:2]

    def step(state: TrainState, chosen: Int32[Array, " batch"]) -> tuple[TrainState, Measured]:
        return gathered_step(state, data, chosen, train_step=experiment.train_step)

    shapes = jax.eval_shape(step, _taken(states, 0), examples[0, 0])[1]

    def trial(turn: Index, carry: Carry) -> Carry:
        states, buffers = carry
        index = order[turn]
        state, values = run_steps(step, _taken(states, index), examples[index], count)
        buffers = {name: buffers[name].at[index].set(values[name]) for name in buffers}
        return _put(states, index, state), buffers

    return lax.fori_loop(0, active, trial, (states, _buffers(shapes, width, capacity)))


def evaluate_in_turn(
    states: TrainState,
    data: Batch,
    examples: Int32[Array, "width batches batch"],
    weights: Float[Array, "width batches batch"],
    order: Int32[Array, " width"],
    active: Int32[Array, ""],
    *,
    experiment: Experiment,
) -> Collected:
    """Evaluates the first ``active`` trials of ``order``, one after the other."""
    one = partial(member_eval, experiment=experiment)
    shapes = jax.eval_shape(one, _taken(states, 0), data, examples[0], weights[0])
    width = examples.shape[0]
    collected = jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape), leaf.dtype), shapes)

    def trial(turn: Index, collected: Collected) -> Collected:
        index = order[turn]
        found = one(_taken(states, index), data, examples[index], weights[index])
        return jax.tree.map(lambda leaf, value: leaf.at[index].set(value), collected, found)

    return lax.fori_loop(0, active, trial, collected)


def compile_programs(
    experiment: Experiment,
    execution_mode: str,
    layout: Layout,
    states: TrainState,
    data: Batch,
    examples: np.ndarray,
    validation: np.ndarray,
    weights: np.ndarray,
    compile: Compiler,
) -> Programs:
    """Compiles one execution mode for the shapes of a population.

    Args:
      experiment: what its trials share.
      execution_mode: ``vmap``, ``scan`` or ``each``.
      layout: the devices; each runs the program on rows of its own.
      states: the stacked states, placed by the layout.
      data: the examples of the structure, on every device.
      examples: training examples by trial and step, as large as they will ever be.
      validation, weights: the evaluation batches by trial.
      compile: does the compiling.
    """
    width, zero = len(examples), np.int32(0)
    examples, validation, weights = layout.split((examples, validation, weights))
    if execution_mode == "vmap":
        one = jax.vmap(partial(member_eval, experiment=experiment), in_axes=(0, None, 0, 0))
        side_by_side = partial(together, experiment=experiment)
        evaluate = jax.jit(layout.spread(one, TRIALS, WHOLE, TRIALS, TRIALS))
        advance = jax.jit(
            layout.spread(side_by_side, TRIALS, WHOLE, TRIALS, WHOLE), donate_argnums=0
        )
        programs = compile.together(
            [
                advance.lower(states, data, examples, zero),
                evaluate.lower(states, data, validation, weights),
            ]
        )
        return Programs(
            execution_mode,
            lambda states, examples, count, active: programs[0](
                states, data, layout.split(examples), np.int32(count)
            ),
            lambda states, examples, weights, active: programs[1](
                states, data, *layout.split((examples, weights))
            ),
        )

    def listed(active: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return layout.split(layout.turns(active, width))

    def evaluated(
        states: TrainState, data: Batch, examples: Array, weights: Array, order: Array, n: Array
    ) -> Collected:
        return evaluate_in_turn(states, data, examples, weights, order, n[0], experiment=experiment)

    none = listed([])
    evaluate = jax.jit(layout.spread(evaluated, TRIALS, WHOLE, TRIALS, TRIALS, TRIALS, TRIALS))
    lowered = [evaluate.lower(states, data, validation, weights, *none)]
    if execution_mode == "each":
        known = compile.together(lowered)[0]
        batch_size = examples.shape[-1]
        return Programs(
            execution_mode,
            _step_by_step(experiment, layout, states, data, batch_size, compile),
            lambda states, examples, weights, active: known(
                states, data, *layout.split((examples, weights)), *listed(active)
            ),
        )

    def trained(
        states: TrainState, data: Batch, examples: Array, count: Array, order: Array, n: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        return in_turn(states, data, examples, count, order, n[0], experiment=experiment)

    advance = jax.jit(
        layout.spread(trained, TRIALS, WHOLE, TRIALS, WHOLE, TRIALS, TRIALS), donate_argnums=0
    )
    lowered.append(advance.lower(states, data, examples, zero, *none))
    programs = compile.together(lowered)
    return Programs(
        execution_mode,
        lambda states, examples, count, active: programs[1](
            states, data, layout.split(examples), np.int32(count), *listed(active)
        ),
        lambda states, examples, weights, active: programs[0](
            states, data, *layout.split((examples, weights)), *listed(active)
        ),
    )


def _step_by_step(
    experiment: Experiment,
    layout: Layout,
    states: TrainState,
    data: Batch,
    batch_size: int,
    compile: Compiler,
) -> Callable[..., tuple[TrainState, dict[str, np.ndarray]]]:
    """Compiles ``each``: each device trains its first trial step by step, its second, and so on.

    A device that has no trial left in a turn computes one whose results are dropped.
    """
    devices = len(layout.devices)

    def step(state: TrainState, data: Batch, chosen: Array) -> tuple[TrainState, Measured]:
        one = _taken(state, 0)
        found = gathered_step(one, data, chosen[0], train_step=experiment.train_step)
        return jax.tree.map(lambda leaf: leaf[None], found)

    def put(states: TrainState, row: Array, state: TrainState) -> TrainState:
        return _put(states, row[0], _taken(state, 0))  # a row beyond the last is dropped

    take = jax.jit(layout.spread(_taken, TRIALS, TRIALS))
    put_back = jax.jit(layout.spread(put, TRIALS, TRIALS, TRIALS), donate_argnums=0)
    stepped = jax.jit(layout.spread(step, TRIALS, WHOLE, TRIALS), donate_argnums=0)
    zeros = layout.split((np.zeros(devices, np.int32), np.zeros((devices, batch_size), np.int32)))
    program = compile(stepped.lower(take(states, zeros[0]), data, zeros[1]))

    def advance(
        states: TrainState, examples: np.ndarray, count: int, active: Sequence[int]
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        width, capacity = examples.shape[:2]
        size = width // devices
        listed, counts = layout.turns(active, width)
        order = listed.reshape(devices, size)
        found: dict[str, np.ndarray] = {}
        for turn in range(int(counts.max())):
            local, busy = order[:, turn], turn < counts
            rows = np.arange(devices) * size + local
            state, values = take(states, layout.split(local)), []
            for done in range(count):
                state, measured = program(state, data, layout.split(examples[rows, done]))
                values.append(measured)
            target = np.where(busy, local, size).astype(np.int32)
            states = put_back(states, layout.split(target), state)
            for name in values[0]:
                columns = np.asarray(jnp.stack([one[name] for one in values], axis=1))
                full = np.full((width, capacity), np.nan, np.float32)
                found.setdefault(name, full)[rows[busy], :count] = columns[busy]
        return states, found

    return advance
