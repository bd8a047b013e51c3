"""The compiled programs of a run, and the measured choice between them.

The same `train_step` is compiled in two ways: alone, to be called from Python once a step, and
inside a loop that runs up to ``capacity`` steps in one dispatch. The loop saves dispatch; the lone
step lets XLA's CPU backend use all cores for an operation. Which is faster depends on model and
device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from jdlopt import mesh as meshes
from jdlopt.mesh.rules import Rule
from jdlopt.train.compiling import Compiler
from jdlopt.train.state import SHARDED, TrainState
from jdlopt.train.step import Batch
from jdlopt.train.steps import (
    Step,
    Trained,
    many_steps,
    one_step,
    streamed_loop,
    streamed_step,
)

CAPACITY = 128
"""Most steps in one dispatch: the size of the buffers that their values come back in."""
DISPATCH_SECONDS = 0.05
"""About how long one dispatch may take: signals, logs and the progress bar wait for its end."""
TIMED_SECONDS = 0.04
"""How long each way is timed before one is chosen."""


@dataclass(frozen=True)
class Dispatch:
    """How steps are dispatched to the device; written to ``result.json``.

    Attributes:
      mode: ``step`` (one call a step) or ``loop`` (many steps in one compiled loop).
      steps: steps in one dispatch.
      chosen: ``config``, ``measured``, ``resumed``, ``streamed`` (batches come one by one, to
        several processes), or ``only way`` (every step is followed by an evaluation or a
        checkpoint).
      step_seconds: the measured time of a step in each way.
    """

    mode: str
    steps: int
    chosen: str
    step_seconds: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """Returns it as JSON can hold it."""
        return asdict(self)


Compiled = Callable[..., Trained]
Tree = TypeVar("Tree", bound=PyTree)
P = ParamSpec("P")


def state_sharding(mesh: Mesh, state: TrainState, rules: Sequence[Rule] = ()) -> TrainState:
    """Returns where each leaf of a state lies.

    Args:
      mesh: the devices.
      state: the state, or its shapes.
      rules: ``mesh.rules`` of the config.

    Raises:
      ConfigError: the parameters can't be placed so.
    """
    everywhere = meshes.replicated(mesh)
    split = {
        name: meshes.sharding_beside(mesh, getattr(state, name), state.params, rules)
        for name in SHARDED
    }
    split["params"] = meshes.parameter_sharding(mesh, state.params, rules)
    return jax.tree.map(lambda _: everywhere, state).replace(**split)


def step_options(mesh: Mesh, state: TrainState) -> dict[str, Any]:
    """Returns how a program that trains is jitted: it takes the state's memory and leaves it there.

    Args:
      mesh: the devices.
      state: the state, or its shapes, placed.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, state), meshes.replicated(mesh)
    return {"donate_argnums": 0, "out_shardings": places}


def capacity_of(asked: int | None, longest: int) -> int:
    """Returns the most steps in one dispatch.

    Args:
      asked: the config's ``train.steps_per_dispatch``.
      longest: most steps between two evaluations or checkpoints.
    """
    return max(1, min(asked or CAPACITY, longest))


def two_in_flight(run: Callable[P, Trained]) -> Callable[P, Trained]:
    """Returns a program that waits, on a CPU, for its call before the last one to end.

    XLA's CPU client takes a call's temporary memory when the call is made, not when it runs, and
    lets 32 calls wait: a step of 500 MB would take 16 GB, and clear new pages for each.
    """
    waiting: deque[dict[str, Array]] = deque()

    def call(*args: P.args, **keys: P.kwargs) -> Trained:
        if len(waiting) == 2:
            jax.block_until_ready(waiting.popleft())
        state, values = run(*args, **keys)
        if jax.default_backend() == "cpu":
            waiting.append(values)
        return state, values

    return call


def copy(tree: Tree) -> Tree:
    """Returns a copy of device arrays in memory of their own, as donation needs."""
    return jax.tree.map(jnp.copy, tree)


def seconds_a_step(
    run: Callable[[TrainState, int], Trained], state: TrainState, first: int, most: int
) -> float:
    """Times a program on a state of its own: a warm-up, then longer until the clock can be trusted.

    Args:
      run: ``(state, steps) → (state, values)``; donates its state.
      state: may be overwritten.
      first: steps in the warm-up.
      most: steps to run at most in one go.
    """
    count, elapsed = first, 0.0
    state, values = run(state, count)
    jax.block_until_ready(values)
    best = float("inf")
    spent = 0.0
    while spent < TIMED_SECONDS or count < min(4, most):
        start = time.perf_counter()
        state, values = run(state, count)
        jax.block_until_ready(values)
        elapsed = time.perf_counter() - start
        spent += elapsed
        best = min(best, elapsed / count)
        if spent > 10 * TIMED_SECONDS:
            break
        count = min(most, count * 2)
    return best


def streaming_program(
    state: TrainState,
    batch: dict[str, Array],
    *,
    train_step: Step,
    mesh: Mesh,
    compile: Compiler,
    asked: Dispatch | int | None,
) -> tuple[Dispatch, Callable[[TrainState, Batch], Trained]]:
    """Compiles the step for batches that come one by one, in the faster way; returns how to run it.

    Args:
      state: the state to train; copied for the timing, never changed.
      batch: one batch.
      train_step, mesh, compile, asked: as in `training_programs`; more than 1 step in a
        dispatch asks for the loop. Several processes, which would have to time the same number of
        steps, take the step.
    """
    everywhere = meshes.replicated(mesh)
    options = step_options(mesh, state)

    def once() -> Array | np.generic:
        return meshes.put(np.int32(1), everywhere) if jax.process_count() > 1 else np.int32(1)

    def lower(mode: str) -> jax.stages.Lowered:
        if mode == "step":
            function = jax.jit(partial(streamed_step, train_step=train_step, mesh=mesh), **options)
            return function.lower(state, batch)
        function = jax.jit(partial(streamed_loop, train_step=train_step, mesh=mesh), **options)
        return function.lower(state, batch, once())

    def run_by(mode: str, program: Compiled) -> Callable[[TrainState, Batch], Trained]:
        if mode == "step":
            return two_in_flight(program)
        return two_in_flight(lambda state, batch: program(state, batch, once()))

    known: tuple[str, str, dict[str, float]] | None = None
    if isinstance(asked, Dispatch):
        known = asked.mode, "resumed", asked.step_seconds
    elif asked is not None:
        known = "step" if asked == 1 else "loop", "config", {}
    elif jax.process_count() > 1:
        known = "step", "streamed", {}
    if known is not None:
        mode, chosen, seconds = known
        run = run_by(mode, compile(lower(mode)))
        return Dispatch(mode, 1, chosen, seconds), run
    ways = ("step", "loop")
    programs = compile.together([lower(way) for way in ways])
    runs = {way: run_by(way, program) for way, program in zip(ways, programs)}

    def repeated(way: str) -> Callable[[TrainState, int], Trained]:
        def call(state: TrainState, count: int) -> Trained:
            values: dict[str, Array] = {}
            for _ in range(count):
                state, values = runs[way](state, batch)
            return state, values

        return call

    seconds = {way: seconds_a_step(repeated(way), copy(state), 1, CAPACITY) for way in ways}
    mode = min(ways, key=lambda way: seconds[way])
    return Dispatch(mode, 1, "measured", seconds), runs[mode]


def training_programs(
    state: TrainState,
    data: Batch,
    batch_size: int,
    *,
    train_step: Step,
    mesh: Mesh,
    compile: Compiler,
    longest: int,
    asked: Dispatch | int | None,
    configured: int | None = None,
    agree: Callable[[float], float] = lambda value: value,
) -> tuple[Dispatch, Callable[[TrainState, np.ndarray], tuple[TrainState, dict[str, Array]]]]:
    """Compiles the training programs, chooses the faster, and returns how to run it.

    Args:
      state: the state to train; copied for the timing, never changed.
      data: the training split in device memory, as `jdlopt.train.steps.stored` makes it.
      batch_size: examples in a global batch.
      train_step: `jdlopt.train.experiment.Experiment.train_step`.
      mesh: the devices.
      compile: does the compiling.
      longest: most steps between two evaluations.
      asked: a choice made before (a resumed run), the config's steps per dispatch, or None.
      configured: the config's steps per dispatch, beside a choice made before.
      agree: makes all processes use the first one's measurement.

    Returns:
      The choice, and ``run(state, examples [steps, batch]) → (state, values [steps or more])``.
    """
    everywhere = meshes.replicated(mesh)
    options = step_options(mesh, state)
    if isinstance(asked, Dispatch):  # the program that the first start has kept serves this one
        capacity = max(asked.steps, capacity_of(configured, longest))
    else:
        capacity = capacity_of(asked, longest)

    def host(value: np.ndarray | np.generic) -> Array | np.ndarray | np.generic:
        return meshes.put(value, everywhere) if jax.process_count() > 1 else value

    padded = np.zeros((capacity, batch_size), np.int32)

    def lower_step() -> jax.stages.Lowered:
        function = jax.jit(partial(one_step, train_step=train_step, mesh=mesh), **options)
        return function.lower(state, data, host(padded[:1]))

    def lower_loop() -> jax.stages.Lowered:
        function = jax.jit(partial(many_steps, train_step=train_step, mesh=mesh), **options)
        return function.lower(state, data, host(padded), host(np.int32(1)))

    def stepwise(program: Compiled) -> Callable[[TrainState, np.ndarray], Trained]:
        return two_in_flight(lambda state, examples: program(state, data, host(examples)))

    def looped(program: Compiled) -> Callable[[TrainState, np.ndarray], Trained]:
        def run(state: TrainState, examples: np.ndarray) -> Trained:
            count = len(examples)
            if count < capacity:
                examples = np.concatenate([examples, padded[count:]])
            return program(state, data, host(examples), host(np.int32(count)))

        return run

    if isinstance(asked, Dispatch):
        known = Dispatch(asked.mode, asked.steps, "resumed", asked.step_seconds)
        if asked.mode == "step":
            return known, stepwise(compile(lower_step()))
        return known, looped(compile(lower_loop()))
    if capacity == 1:
        chosen = "config" if asked else "only way"
        return Dispatch("step", 1, chosen, {}), stepwise(compile(lower_step()))
    if asked is not None:
        return Dispatch("loop", capacity, "config", {}), looped(compile(lower_loop()))

    programs = compile.together([lower_step(), lower_loop()])
    step, loop = stepwise(programs[0]), looped(programs[1])
    zeros = np.zeros((capacity, batch_size), np.int32)
    zeros[:] = np.arange(batch_size) % len(data["targets"])

    def call_step(state: TrainState, count: int) -> Trained:
        values: dict[str, Array] = {}
        for _ in range(count):
            state, values = step(state, zeros[:1])
        return state, values

    def call_loop(state: TrainState, count: int) -> Trained:
        return loop(state, zeros[:count])

    seconds = {
        "step": agree(seconds_a_step(call_step, copy(state), 1, capacity)),
        "loop": agree(seconds_a_step(call_loop, copy(state), 1, capacity)),
    }
    if seconds["step"] < seconds["loop"]:
        return Dispatch("step", 1, "measured", seconds), step
    steps = int(np.clip(DISPATCH_SECONDS / seconds["loop"], 1, capacity))
    return Dispatch("loop", steps, "measured", seconds), loop
