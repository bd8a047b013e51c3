"""Measures the training step against PyTorch eager: same model, batch, optimizer and CPU, in turn.

    make bench BENCHMARKS=benchmarks/measure_step.py

Three ways of a step (forward, backward, AdamW) on one batch of 128 that lies in memory: as `fit`
runs it, as JAX without its tricks (`flax.linen` layers, so the convolution of `lax`; optax; a
jitted step), and PyTorch at the better of one and all threads. No data is read, nothing is logged.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import torch
from models import EXPERIMENTS, INPUT_SHAPES, OPTIM, plain_model, torch_model
from recording import alternating, spread, write

from jdlopt import memory
from jdlopt import mesh as meshes
from jdlopt.train.compiling import Compiler
from jdlopt.train.experiment import Experiment
from jdlopt.train.program import training_programs

MODELS = ("image_resnet", "image_cnn", "image_transformer")
BATCH = 128
SECONDS = 1.0
REPETITIONS = 7
TARGET = 1.0


def timed(run: Callable[[int], None], seconds: float = SECONDS) -> float:
    """Returns the steps per second of ``run(steps)``, over about as long as asked."""
    start = time.perf_counter()
    run(2)
    steps = max(2, round(2 * seconds / (time.perf_counter() - start)))
    start = time.perf_counter()
    run(steps)
    return steps / (time.perf_counter() - start)


def torch_run(name: str, inputs: np.ndarray, targets: np.ndarray) -> Callable[[int], None]:
    """Returns PyTorch's loop over one batch, channels first."""
    torch.manual_seed(0)
    model = torch_model(name).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIM["learning_rate"], weight_decay=OPTIM["weight_decay"]
    )
    loss = torch.nn.CrossEntropyLoss()
    x = torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())
    y = torch.from_numpy(targets.astype(np.int64))

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss(model(x), y).backward()
            optimizer.step()

    return run


def plain_run(name: str, inputs: np.ndarray, targets: np.ndarray) -> Callable[[int], None]:
    """Returns a loop as JAX's tutorials have it: Linen layers, optax, one jitted step."""
    model = plain_model(name)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), inputs)
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    optimizer = optax.adamw(OPTIM["learning_rate"], weight_decay=OPTIM["weight_decay"])

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Any, x: Any, y: Any) -> Any:
        params, rest, opt_state = carry

        def objective(params: Any) -> Any:
            logits, changed = model.apply(
                {"params": params, **rest}, x, train=True, mutable=list(rest)
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), changed

        (value, rest), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), rest, opt_state), value

    x, y = jax.device_put(inputs), jax.device_put(targets)
    carry = (params, rest, optimizer.init(params))

    def run(steps: int) -> None:
        nonlocal carry
        value = None
        for _ in range(steps):
            carry, value = step(carry, x, y)
        jax.block_until_ready(value)

    return run


def our_run(
    name: str, inputs: np.ndarray, targets: np.ndarray
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Returns the loop of `fit` over one batch, in the way that it chooses, and that choice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, x=np.concatenate([inputs] * 3), y=np.concatenate([targets] * 3))
        source = {"source": str(path), "batch_size": BATCH}
        parts = Experiment.build({**EXPERIMENTS[name], "data": source, "train": {"steps": 1000}})
        arrays = parts.data.read("train")
    mesh = meshes.make_mesh(parts.config.mesh)
    state = parts.init(0)
    choice, program = training_programs(
        state,
        {"inputs": jax.device_put(arrays.inputs), "targets": jax.device_put(arrays.targets)},
        BATCH,
        train_step=parts.train_step,
        mesh=mesh,
        compile=Compiler(),
        longest=1000,
        asked=None,
    )

    def run(steps: int) -> None:
        nonlocal state
        values = None
        while steps:
            count = min(steps, choice.steps)
            examples = np.tile(np.arange(BATCH, dtype=np.int32), (count, 1))
            state, values = program(state, examples)
            steps -= count
        jax.block_until_ready(values)

    return run, choice.to_dict()


def measure(name: str) -> dict[str, Any]:
    """Returns the rates of one model in each way, and the ratios."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(BATCH, *INPUT_SHAPES[name])).astype(np.float32)
    targets = np.arange(BATCH, dtype=np.int32) % 10
    ours, choice = our_run(name, inputs, targets)
    run_torch = torch_run(name, inputs, targets)

    def threaded(threads: int) -> float:
        torch.set_num_threads(threads)
        return timed(run_torch)

    ways = {"jdlopt": lambda: timed(ours)}
    plain = plain_run(name, inputs, targets)
    ways["plain JAX"] = lambda: timed(plain)
    for threads in {1, os.cpu_count() or 1}:
        ways[f"torch, {threads} threads"] = partial(threaded, threads)
    rates = alternating(ways, REPETITIONS)
    best = max(
        (way for way in rates if way.startswith("torch")),
        key=lambda way: spread(rates[way])["median"],
    )
    ratios = {
        way: spread([a / b for a, b in zip(rates[way], rates[best], strict=True)])
        for way in ("jdlopt", "plain JAX")
    }
    middle = {way: round(ratio["median"], 2) for way, ratio in ratios.items()}
    print(f"{name}: {middle} of {best}; {choice}", flush=True)
    return {
        "steps_per_second": {way: spread(values) for way, values in rates.items()},
        "dispatch": choice,
        "peer": best,
        "ratio": ratios["jdlopt"],
        "plain_ratio": ratios["plain JAX"],
        "target": TARGET,
    }


def main() -> None:
    """Measures the models, or those that are named, and writes the ratios if it was all."""
    memory.keep()
    names = sys.argv[1:] or MODELS
    found = {name: measure(name) for name in names}
    if set(names) == set(MODELS):
        write("step", {"torch": torch.__version__, "models": found})


if __name__ == "__main__":
    memory.start_again()  # as `jdlopt train` does; PyTorch has the same pages here
    main()
