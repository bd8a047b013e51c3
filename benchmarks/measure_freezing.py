"""What freezing spares: a step's time and FLOPs frozen, unfrozen and in phases; cached features.

python benchmarks/measure_freezing.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from recording import alternating, spread, write

from jdlopt import config as configs
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.state import as_arrays

BATCH, REPETITIONS, UNFROZEN = 64, 12, 50
PHASES = {
    f"block_{index}": {"params": (f"^conv_{index}/",), "unfreeze_at": UNFROZEN - 10 * index}
    for index in range(3)
}
"""Each of three blocks at a step of its own, the topmost first."""
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    "all trained": ({}, 0),
    "body frozen": ({"freeze": ("^conv_",)}, 0),
    "three unfreezings, before the first": ({"groups": PHASES}, 0),
    "three unfreezings, after the last": ({"groups": PHASES}, UNFROZEN),
}
"""How the optim section goes, and at which step the time is taken."""


def config(path: Path, optim: dict[str, Any], **train: Any) -> dict[str, Any]:
    """Returns a 2-D CNN of three blocks on images of 28×28."""
    return {
        "data": {"source": str(path), "batch_size": BATCH},
        "model": {"name": "cnn", "features": (32, 64, 64), "pool": "max"},
        "optim": {"name": "adam", **optim},
        "train": {"steps": 100, "tensorboard": False, **train},
        "mesh": {"data": 1},
    }


def program(path: Path, optim: dict[str, Any], step: int) -> tuple[Any, dict[str, float]]:
    """Returns a way to time one step, and what compiling it took and says of it."""
    parts = Experiment.build(config(path, optim))
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {name: jnp.asarray(getattr(arrays, name)[:BATCH]) for name in ("inputs", "targets")}
    state = parts.init(0, as_arrays(configs.hyperparameters(resolved)))
    at = jnp.int32(step)
    state = state.replace(step=at, opt_state=state.opt_state._replace(step=at))
    lowered = jax.jit(parts.train_step).lower(state, batch)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    moments = sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(state, batch))
        return time.perf_counter() - start

    once()
    # of a conditional, the compiler counts the dearest branch
    flops = compiled.cost_analysis()["flops"]
    return once, {"compile_seconds": seconds, "flops": flops, "optimizer_bytes": moments}


def main() -> None:
    """Measures the steps in turn, then two whole runs."""
    folder = Path(tempfile.mkdtemp())
    rng, path = np.random.default_rng(0), folder / "images.npz"
    images = rng.normal(size=(1088, 28, 28, 1)).astype(np.float32)
    labels = np.arange(1088) % 10
    np.savez(path, x_train=images[64:], y_train=labels[64:], x_test=images[:64], y_test=labels[:64])
    made = {name: program(path, *way) for name, way in WAYS.items()}
    seconds = alternating({name: once for name, (once, _) in made.items()}, REPETITIONS)
    steps = {name: {**made[name][1], "step_seconds": spread(seconds[name])} for name in made}
    for name, found in steps.items():
        print(f"{name}: {found['step_seconds']['median'] * 1e3:.1f} ms")
    probes = {}
    for cached in (False, True):
        frozen = {"freeze": ("^conv_",)}
        options = {"steps": None, "epochs": 10, "cache_features": cached}
        record = fit(config(path, frozen, **options), folder / f"cached-{cached}").record
        probes["cached" if cached else "not cached"] = {
            "wall_seconds": record["wall_seconds"],
            "examples_per_second": record["examples_per_second"],
            "train_loss": record["metrics"]["train/loss"],
        }
    print(probes)
    write("freezing", {"batch_size": BATCH, "steps": steps, "probe_of_10_epochs": probes})


if __name__ == "__main__":
    main()
