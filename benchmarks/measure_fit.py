"""Measures what `fit` costs over a hand-written loop: the same step in a bare jitted scan.

    python benchmarks/measure_fit.py

`fit` logs, evaluates the validation split every epoch, watches for the best and writes TensorBoard
files; the scan does nothing but train, an epoch a dispatch, its batches drawn beforehand. Both are
timed without compilation, in turn, in one process.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from models import EXPERIMENTS
from recording import alternating, spread, write

from jdlopt import config as configs
from jdlopt.data import feed
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.state import as_arrays

REPETITIONS = 9
EPOCHS = {"mnist1d_mlp": 240, "mnist1d_cnn": 60}


def bare_scan(config: dict) -> partial:
    """Returns a run of the bare scan → examples per second."""
    parts = Experiment.build(config)
    resolved, dataset = parts.config, parts.data
    arrays = dataset.read("train")
    data = {"inputs": jnp.asarray(arrays.inputs), "targets": jnp.asarray(arrays.targets)}
    batch_size, size = resolved.data.batch_size, len(arrays.targets)
    hparams = as_arrays(configs.hyperparameters(resolved))
    per_epoch = size // batch_size
    init = jax.jit(lambda hparams: parts.init(0, hparams))

    @partial(jax.jit, donate_argnums=0)
    def epoch(state, data, examples):
        def body(state, chosen):
            batch = {name: values[chosen] for name, values in data.items()}
            return parts.train_step(state, batch)

        return jax.lax.scan(body, state, examples)

    orders = feed.batch_examples(0, 0, batch_size, size, per_epoch * 2)
    orders = np.split(orders, 2)
    jax.block_until_ready(epoch(init(hparams), data, orders[0]))
    epochs = resolved.train.epochs

    def run() -> float:
        state = init(hparams)
        jax.block_until_ready(state.params)
        start = time.perf_counter()
        for index in range(epochs):
            state, values = epoch(state, data, orders[index % 2])
        jax.block_until_ready((state.params, values))
        return epochs * per_epoch * batch_size / (time.perf_counter() - start)

    return run


def fitted(config: dict) -> float:
    """Returns the examples per second that `fit` reports for a whole run."""
    with tempfile.TemporaryDirectory() as workdir:
        record = fit(config, Path(workdir) / "run").record
    return record["examples_per_second"]


def main() -> None:
    """Measures both models and writes the ratios."""
    found = {}
    for name, epochs in EPOCHS.items():
        config = {**EXPERIMENTS[name], "train": {"epochs": epochs, "evaluate_test": False}}
        rates = alternating(
            {"fit": partial(fitted, config), "scan": bare_scan(config)}, REPETITIONS
        )
        ratios = [a / b for a, b in zip(rates["fit"], rates["scan"], strict=True)]
        found[name] = {
            "epochs": epochs,
            "examples_per_second": {way: spread(values) for way, values in rates.items()},
            "ratio": spread(ratios),
        }
        print(f"{name}: fit / bare scan = {spread(ratios)['median']:.3f} {ratios}")
    write("fit", {"target": "ratio >= 0.95", "experiments": found})


if __name__ == "__main__":
    main()
