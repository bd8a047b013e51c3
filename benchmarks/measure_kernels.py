"""Measures training steps by the algorithm of their convolutions: alone, in loops, in populations.

    make bench BENCHMARKS=benchmarks/measure_kernels.py

One step (forward, backward, AdamW, a batch that lies in memory) with the algorithms that
`jdlopt.kernels` chooses by shape, with those of `lax` alone, and with patches and matmuls alone.
Executions: ``step`` is called from Python, as by a run, or by a population that trains trial by
trial; ``loop`` takes several steps in one program; of a population of 4 trials, ``vmap`` takes
steps side by side, and ``scan`` one trial after the other. Milliseconds are of one trial's step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from models import EXPERIMENTS, INPUT_SHAPES, OPTIM
from recording import spread, write

from jdlopt import memory
from jdlopt.kernels import algorithms, convolution
from jdlopt.models import make_model

DIGITS = {"name": "cnn", "features": (32, 64, 64), "kernel_size": 3, "batch_norm": True}
"""The convolutions of configs/image/digits_cnn.py."""
MODELS: dict[str, tuple[dict[str, Any], int, tuple[int, ...], tuple[str, ...]]] = {
    name: (EXPERIMENTS[name]["model"], 128, INPUT_SHAPES[name], ("step", "loop"))
    for name in ("image_resnet", "image_cnn")
}
EVERY = ("step", "loop", "vmap", "scan")
MODELS["mnist1d_cnn"] = EXPERIMENTS["mnist1d_cnn"]["model"], 100, (40,), EVERY
MODELS["digits_cnn"] = DIGITS, 64, (8, 8, 1), EVERY
"""By name: the model, the batch's size, the inputs' shape, the executions."""

PATCHES = "patches"
ALGORITHMS: dict[str, dict[str, Any]] = {
    "chosen": {},
    "lax": {
        "cpu_outputs": algorithms.lax_outputs,
        "cpu_input_gradient": algorithms.lax_input_gradient,
        "cpu_kernel_gradient": algorithms.lax_kernel_gradient,
    },
    PATCHES: {},
}
"""By name: what replaces functions of `jdlopt.kernels.convolution`."""

TRIALS = 4
SECONDS = 0.3
REPETITIONS = 7
SLOW = 3.0
"""Seconds of a step above which it is measured once."""


def training(
    section: dict[str, Any], batch: int, shape: tuple[int, ...]
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Returns ``init(key)`` and ``step(state)``, pure."""
    model = make_model(section, 10)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, *shape)), jnp.float32)
    y = jnp.arange(batch) % 10
    optimizer = optax.adamw(OPTIM["learning_rate"], weight_decay=OPTIM["weight_decay"])

    def init(key: Any) -> Any:
        params, rest = model.init(key, x[:1], {})
        return params, rest, optimizer.init(params)

    def step(state: Any) -> Any:
        params, rest, opt_state = state

        def objective(params: Any) -> Any:
            key = jax.random.key(0)
            logits, changed = model.apply(params, rest, x, {}, key=key, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed

        grads, rest = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), rest, opt_state

    return init, step


def compiled(name: str, execution: str, algorithm: str) -> Callable[[int], float]:
    """Returns ``run(steps)``: the seconds of one trial's step, of so many."""
    section, batch, shape, _ = MODELS[name]
    init, step = training(section, batch, shape)
    trials = TRIALS if execution in ("vmap", "scan") else 1
    keys = jax.random.split(jax.random.key(0), trials)
    state = jax.jit(jax.vmap(init))(keys)
    if trials == 1:
        state = jax.tree.map(lambda leaf: leaf[0], state)

    def several(state: Any, steps: Any) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, state: step(state), state)

    program = {
        "step": lambda state, steps: step(state),
        "loop": several,
        "vmap": lambda state, steps: jax.lax.fori_loop(
            0, steps, lambda _, states: jax.vmap(step)(states), state
        ),
        "scan": lambda state, steps: jax.lax.map(lambda one: several(one, steps), state),
    }[execution]
    with ExitStack() as patched:
        for product, replacement in ALGORITHMS[algorithm].items():
            patched.enter_context(mock.patch.object(convolution, product, replacement))
        if algorithm == PATCHES:
            always = mock.patch.object(algorithms, "takes_patches", return_value=True)
            patched.enter_context(always)
        call = jax.jit(program, donate_argnums=0).lower(state, np.int32(1)).compile()

    def run(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps if execution == "step" else 1):
            state = call(state, np.int32(steps))
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / steps / trials

    return run


def measure(name: str) -> dict[str, dict[str, Any]]:
    """Returns milliseconds of one model's step by execution and algorithm, taken in turn."""
    found: dict[str, dict[str, Any]] = {}
    for execution in MODELS[name][3]:
        runs = {algorithm: compiled(name, execution, algorithm) for algorithm in ALGORITHMS}
        first = {algorithm: run(1) for algorithm, run in runs.items()}
        times: dict[str, list[float]] = {
            algorithm: [seconds] if seconds > SLOW else [] for algorithm, seconds in first.items()
        }
        quick = {algorithm: run for algorithm, run in runs.items() if first[algorithm] <= SLOW}
        counts = {each: max(1, round(SECONDS / run(2))) for each, run in quick.items()}
        for _ in range(REPETITIONS):
            for algorithm, run in quick.items():
                times[algorithm].append(run(counts[algorithm]))
        found[execution] = {
            algorithm: spread([1e3 * seconds for seconds in taken])
            for algorithm, taken in times.items()
        }
        middle = {each: round(taken["median"], 2) for each, taken in found[execution].items()}
        print(f"{name}, {execution}: {middle} ms", flush=True)
    return found


def main() -> None:
    """Measures the models, or those that are named, whose numbers replace earlier ones."""
    memory.keep()
    for name in sys.argv[1:] or MODELS:
        write("kernels", {"trials": TRIALS, name: measure(name)}, keep=True)


if __name__ == "__main__":
    memory.start_again()  # as `jdlopt train` does
    main()
