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

from jdlopt.data import preprocess
from jdlopt.study.structure import Structure
from jdlopt.train import experiment
from jdlopt.train.compiling import Compiler
from jdlopt.train.program import gather
from jdlopt.train.state import TrainState
from jdlopt.train.step import eval_step, train_step

FORMULATIONS = ("vmap", "scan", "each")
CHANGES = ("step", "params", "model_state", "opt_state", "average", "loss_scale")
"""The fields of a state that a step changes; key and hyperparameters stay."""


class Programs(NamedTuple):
    """How a population of a fixed width is trained and evaluated.

    Attributes:
      formulation: ``vmap``, ``scan`` or ``each``.
      advance: ``(states, preprocess, examples [width, steps, batch], count, active) →
        (states, values by name [width, steps])``; donates the states.
      evaluate: ``(states, preprocess, examples [width, batches, batch], weights, active) →
        collected``, each leaf [width, batches, …].
    """

    formulation: str
    advance: Callable[..., tuple[TrainState, dict[str, Array]]]
    evaluate: Callable[..., Any]


def member_step(
    state: TrainState, scaling: Any, data: Any, chosen: Int32[Array, " batch"], *, parts: Any
) -> tuple[TrainState, dict[str, Array]]:
    """One trial's `train_step`, with preprocessing of its own fold.

    ``parts`` are those of `train_step`, ``preprocess`` being ``(state, inputs) → inputs``.
    """
    own = {**parts, "preprocess": partial(parts["preprocess"], scaling)}
    return train_step(state, gather(data, chosen), **own)


def member_eval(
    state: TrainState,
    scaling: Any,
    data: Any,
    examples: Int32[Array, "batches batch"],
    weights: Float[Array, "batches batch"],
    *,
    structure: Structure,
) -> Any:
    """What the metrics need of one trial's validation split, batch by batch."""
    parts = structure.parts
    params, model_state = experiment.evaluated(parts, state)

    def one(batch: tuple[Array, Array]) -> Any:
        chosen, weight = batch
        return eval_step(
            params,
            model_state,
            state.hparams,
            {**gather(data, chosen), "weights": weight},
            model=parts.model,
            loss=parts.loss,
            collect=parts.collector.collect,
            preprocess=partial(preprocess.apply, parts.recipe, scaling),
        )

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
        for name in CHANGES
    }
    return states.replace(**changed)


def _buffers(shapes: Mapping[str, Any], *leading: int) -> dict[str, Array]:
    return {
        name: jnp.full((*leading, *shape.shape), jnp.nan, shape.dtype)
        for name, shape in shapes.items()
    }


def together(
    states: TrainState, scaling: Any, data: Any, examples: Any, count: Any, *, parts: Any
) -> tuple[TrainState, dict[str, Array]]:
    """All trials take ``count`` steps side by side."""
    step = jax.vmap(partial(member_step, parts=parts), in_axes=(0, 0, None, 0))
    shapes = jax.eval_shape(step, states, scaling, data, examples[:, 0])[1]
    buffers = _buffers(shapes, examples.shape[1])

    def body(done: Any, carry: Any) -> Any:
        states, buffers = carry
        chosen = lax.dynamic_index_in_dim(examples, done, axis=1, keepdims=False)
        states, measured = step(states, scaling, data, chosen)
        return states, {name: buffers[name].at[done].set(measured[name]) for name in buffers}

    states, buffers = lax.fori_loop(0, count, body, (states, buffers))
    return states, {name: buffer.swapaxes(0, 1) for name, buffer in buffers.items()}


def in_turn(
    states: TrainState,
    scaling: Any,
    data: Any,
    examples: Int32[Array, "width steps batch"],
    count: Any,
    order: Int32[Array, " width"],
    active: Any,
    *,
    parts: Any,
) -> tuple[TrainState, dict[str, Array]]:
    """The first ``active`` trials of ``order`` take ``count`` steps, one trial after the other.

    Both numbers are traced: trials that end early cost nothing and compile nothing.
    """
    width, capacity = examples.shape[:2]
    step = partial(member_step, parts=parts)
    shapes = jax.eval_shape(step, _taken(states, 0), _taken(scaling, 0), data, examples[0, 0])[1]

    def trial(turn: Any, carry: Any) -> Any:
        states, buffers = carry
        index = order[turn]
        own = _taken(scaling, index)

        def unfinished(inner: Any) -> Array:
            done, _, _, finite = inner
            return (done < count) & finite

        def body(inner: Any) -> Any:
            done, state, values, _ = inner
            state, measured = step(state, own, data, examples[index, done])
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
    scaling: Any,
    data: Any,
    examples: Any,
    weights: Any,
    order: Any,
    active: Any,
    *,
    structure: Structure,
) -> Any:
    """Evaluates the first ``active`` trials of ``order``, one after the other."""
    one = partial(member_eval, structure=structure)
    shapes = jax.eval_shape(one, *(_taken(x, 0) for x in (states, scaling)), data, examples[0],
                            weights[0])  # fmt: skip
    width = examples.shape[0]
    collected = jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape), leaf.dtype), shapes)

    def trial(turn: Any, collected: Any) -> Any:
        index = order[turn]
        found = one(
            _taken(states, index), _taken(scaling, index), data, examples[index], weights[index]
        )
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
    scaling: Any,
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
      scaling: the stacked states of preprocessing.
      examples: training examples by trial and step, as large as they will ever be.
      validation, weights: the evaluation batches by trial.
      compile: does the compiling.
    """
    own = structure.parts
    parts = {**own.step_parts, "preprocess": partial(preprocess.apply, own.recipe)}
    data, width, zero = structure.data, len(examples), np.int32(0)
    order = np.arange(width, dtype=np.int32)
    if formulation == "vmap":
        mesh = trial_mesh(width)
        if mesh is not None:
            split = NamedSharding(mesh, P("trials"))
            everywhere = NamedSharding(mesh, P())
            states, scaling, validation, weights = jax.device_put(
                (states, scaling, validation, weights), split
            )
            data = jax.device_put(data, everywhere)
        advance = jax.jit(partial(together, parts=parts), donate_argnums=0)
        one = partial(member_eval, structure=structure)
        evaluate = jax.jit(jax.vmap(one, in_axes=(0, 0, None, 0, 0)))
        programs = compile.together(
            [
                advance.lower(states, scaling, data, examples, zero),
                evaluate.lower(states, scaling, data, validation, weights),
            ]
        )

        def placed(tree: Any) -> Any:
            return tree if mesh is None else jax.device_put(tree, split)

        return Programs(
            formulation,
            lambda states, scaling, examples, count, active: programs[0](
                placed(states), placed(scaling), data, examples, np.int32(count)
            ),
            lambda states, scaling, examples, weights, active: programs[1](
                states, placed(scaling), data, placed(examples), placed(weights)
            ),
        )
    evaluate = jax.jit(partial(evaluate_in_turn, structure=structure))
    lowered = [evaluate.lower(states, scaling, data, validation, weights, order, zero)]
    if formulation == "scan":
        advance = jax.jit(partial(in_turn, parts=parts), donate_argnums=0)
        lowered.append(advance.lower(states, scaling, data, examples, zero, order, zero))
    else:
        step = jax.jit(partial(member_step, parts=parts), donate_argnums=0)
        state = jax.eval_shape(lambda: _taken(states, 0))
        lowered.append(step.lower(state, _taken(scaling, 0), data, examples[0, 0]))
    programs = compile.together(lowered)

    def listed(active: np.ndarray) -> tuple[np.ndarray, np.int32]:
        order = np.zeros(width, np.int32)
        order[: len(active)] = active
        return order, np.int32(len(active))

    def evaluate_all(states: Any, scaling: Any, examples: Any, weights: Any, active: Any) -> Any:
        return programs[0](states, scaling, data, examples, weights, *listed(active))

    if formulation == "scan":
        return Programs(
            formulation,
            lambda states, scaling, examples, count, active: programs[1](
                states, scaling, data, examples, np.int32(count), *listed(active)
            ),
            evaluate_all,
        )
    put = jax.jit(_put, donate_argnums=0)
    take = jax.jit(_taken)

    def each(states: Any, scaling: Any, examples: Any, count: int, active: Any) -> Any:
        values: dict[str, list[Any]] = {}
        for index in active:
            state, own = take(states, index), take(scaling, index)
            rows = []
            for done in range(count):
                state, measured = programs[1](state, own, data, examples[index, done])
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
