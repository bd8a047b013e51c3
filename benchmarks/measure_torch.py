"""Measures `fit` against PyTorch eager: same model, batch size, optimizer and CPU, in turn.

    make bench BENCHMARKS=benchmarks/measure_torch.py

PyTorch's loop is as lean as it gets: data in one tensor, a permutation an epoch, no logging and no
evaluation, at the better of one and all threads. `fit` logs and evaluates. Neither counts its
start or compilation.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from models import EXPERIMENTS, OPTIM, torch_model
from recording import alternating, spread, write

from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

REPETITIONS = 5
STEPS = {"mnist1d_mlp": (1500, 400), "mnist1d_cnn": (800, 200), "image_cnn": (48, 12)}
TARGETS = {"mnist1d_mlp": 5.0, "mnist1d_cnn": 5.0, "image_cnn": 1.0}


def torch_rate(
    name: str, inputs: np.ndarray, targets: np.ndarray, batch_size: int, steps: int, threads: int
) -> float:
    """Returns PyTorch's examples per second over a number of steps."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch_model(name).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIM["learning_rate"], weight_decay=OPTIM["weight_decay"]
    )
    loss = torch.nn.CrossEntropyLoss()
    # channels first, as PyTorch has them
    x = torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())
    y = torch.from_numpy(targets.astype(np.int64))
    size = len(y) // batch_size * batch_size

    def batches(count: int):
        done = 0
        while True:
            for chosen in torch.randperm(len(y))[:size].split(batch_size):
                if done == count:
                    return
                done += 1
                yield x[chosen], y[chosen]

    def train(count: int) -> None:
        for a, b in batches(count):
            optimizer.zero_grad(set_to_none=True)
            loss(model(a), b).backward()
            optimizer.step()

    train(max(3, steps // 10))
    start = time.perf_counter()
    train(steps)
    return steps * batch_size / (time.perf_counter() - start)


def fit_rate(config: dict, steps: int) -> float:
    """Returns the examples per second that `fit` reports."""
    with tempfile.TemporaryDirectory() as workdir:
        config = {**config, "train": {"steps": steps, "evaluate_test": False}}
        return fit(config, Path(workdir) / "run").record["examples_per_second"]


def main() -> None:
    """Measures the three models and writes the ratios."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        images = Path(folder) / "images.npz"
        np.savez(
            images,
            x=rng.normal(size=(2048, 28, 28, 1)).astype(np.float32),
            y=np.arange(2048) % 10,
        )
        for name, (steps, torch_steps) in STEPS.items():
            config = dict(EXPERIMENTS[name])
            if name == "image_cnn":
                config["data"] = {**config["data"], "source": str(images)}
            _, dataset = Experiment.build(config)
            inputs, targets = dataset.read("train")
            batch_size = config["data"]["batch_size"]
            runs = {"jdlopt": partial(fit_rate, config, steps)}
            for threads in {1, os.cpu_count()}:
                runs[f"torch, {threads} threads"] = partial(
                    torch_rate, name, inputs, targets, batch_size, torch_steps, threads
                )
            rates = alternating(runs, REPETITIONS)
            peers = [way for way in rates if way != "jdlopt"]
            best = max(peers, key=lambda way: spread(rates[way])["median"])
            ratios = [a / b for a, b in zip(rates["jdlopt"], rates[best], strict=True)]
            found[name] = {
                "examples_per_second": {way: spread(values) for way, values in rates.items()},
                "peer": best,
                "ratio": spread(ratios),
                "target": TARGETS[name],
            }
            print(f"{name}: {spread(ratios)['median']:.2f} × {best} {ratios}", flush=True)
    write("torch", {"torch": torch.__version__, "experiments": found})


if __name__ == "__main__":
    main()
