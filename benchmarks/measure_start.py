"""Counts compilations over ten values of every float of a config, and times `jdlopt --help`.

python benchmarks/measure_start.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from recording import spread, write

from jdlopt import config as configs
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import as_arrays

ROOT = Path(__file__).parent.parent


def compilations(path: Path) -> dict:
    """Returns how often the step compiles while each float takes ten values."""
    parts = Experiment.build(configs.load(path))
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    batch = {"inputs": jnp.asarray(arrays.inputs[:64]), "targets": jnp.asarray(arrays.targets[:64])}
    hparams = as_arrays(configs.hyperparameters(resolved))
    state = parts.init(0, hparams)
    program = jax.jit(parts.train_step)
    leaves, tree = jax.tree.flatten(hparams)
    for position in range(len(leaves)):
        for scale in np.linspace(0.5, 0.95, 10, dtype=np.float32):
            varied = list(leaves)
            varied[position] = leaves[position] * scale
            program(state.replace(hparams=jax.tree.unflatten(tree, varied)), batch)
    return {"floats": len(leaves), "values": 10, "compilations": program._cache_size()}


def help_seconds() -> float:
    """Returns the wall time of one `jdlopt --help`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jdlopt.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measures both and writes them."""
    names = ("sequence/mnist1d_mlp", "sequence/mnist1d_cnn")
    counted = {name: compilations(ROOT / "configs" / f"{name}.py") for name in names}
    help_seconds()
    seconds = spread([help_seconds() for _ in range(10)])
    print(counted, f"--help: {seconds['median']:.3f} s")
    write("start", {"compilations": counted, "help_seconds": seconds})


if __name__ == "__main__":
    main()
