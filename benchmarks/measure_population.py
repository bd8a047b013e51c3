"""Measures a population over the host's cores: devices of one process against processes.

    python benchmarks/measure_population.py [--trials=16] [--epochs=20] [--repetitions=3]

The same trials of the MNIST-1D MLP train one after the other on every core: in one process with a
device a core, its trials sharded over them, and in a process a core with a share of the trials
each. Told are the microseconds of a step and core while they train, and the seconds of the whole,
with imports and compilation; compiled programs are not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from models import EXPERIMENTS
from recording import spread, write

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train(trials: list[int], epochs: int) -> dict[str, float]:
    """Trains a population on this process's devices; returns its steps and seconds."""
    import jax

    from jdlopt import memory
    from jdlopt.study import structure
    from jdlopt.study.population import Cache, Population
    from jdlopt.study.trial import Trial

    memory.keep()
    config = {**EXPERIMENTS["mnist1d_mlp"], "train": {"epochs": epochs}}
    [one] = structure.build(config)
    rates = {index: 1e-3 * 1.1**index for index in trials}
    trained = [Trial(i, i, None, {"optim.learning_rate": rate}) for i, rate in rates.items()]
    population = Population(
        one,
        trained,
        width=len(trained),
        execution_mode="scan",
        cache=Cache(),
        devices=jax.local_devices(),
    )
    population.compile()
    population.train_all()
    assert all(trial.status == "done" for trial in trained)
    return {
        "steps": population.trained_steps,
        "seconds": population.train_seconds,
        "devices": len(population.layout.devices),
    }


def start(trials: list[int], epochs: int, devices: int, core: int | None) -> subprocess.Popen[str]:
    """Starts a process that trains some trials; on one core, or on all."""
    cores = set(range(CORES)) if core is None else {core}
    flags = f"--xla_force_host_platform_device_count={devices}"
    one_thread = "--xla_cpu_multi_thread_eigen=false"  # as a study's workers, a core each
    return subprocess.Popen(
        [sys.executable, __file__, f"--epochs={epochs}", f"--train={json.dumps(trials)}"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags} {one_thread}".strip(),
        },
    )


def measured(shares: list[list[int]], epochs: int, devices: int) -> dict[str, float]:
    """Trains shares of trials in a process each: times of a step and core, and in all."""
    begun = time.perf_counter()
    started = [
        start(share, epochs, devices, None if len(shares) == 1 else core)
        for core, share in enumerate(shares)
    ]
    found = []
    for process in started:
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        found.append(json.loads(out.splitlines()[-1]))
    wall = time.perf_counter() - begun
    busy = sum(one["seconds"] * one["devices"] for one in found)
    return {"microseconds": 1e6 * busy / sum(one["steps"] for one in found), "seconds": wall}


def main() -> None:
    """Measures both ways in turn and writes them."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--trials", type=int, default=16)
    words.add_argument("--epochs", type=int, default=20)
    words.add_argument("--repetitions", type=int, default=3)
    words.add_argument("--train", type=json.loads, help=argparse.SUPPRESS)
    flags = words.parse_args()
    if flags.train is not None:
        print(json.dumps(train(flags.train, flags.epochs)))
        return
    everything = list(range(flags.trials))
    ways = {
        "one process, a device a core": ([everything], CORES),
        "a process a core": ([everything[core::CORES] for core in range(CORES)], 1),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(flags.repetitions):
        for name, (shares, devices) in ways.items():
            runs[name].append(measured(shares, flags.epochs, devices))
            print(name, runs[name][-1], flush=True)
    first, second = runs.values()
    ratios = [b["microseconds"] / a["microseconds"] for a, b in zip(first, second, strict=True)]
    record = {
        "trials": flags.trials,
        "epochs": flags.epochs,
        "cores": CORES,
        "microseconds_a_step_and_core": {
            name: spread([one["microseconds"] for one in found]) for name, found in runs.items()
        },
        "seconds": {
            name: spread([one["seconds"] for one in found]) for name, found in runs.items()
        },
        "speed_of_one_process": spread(ratios),
    }
    write("population", record)


if __name__ == "__main__":
    main()
