"""Measures a population over devices of one process: its results against one device, and its speed.

    python benchmarks/measure_population.py [--trials=256] [--epochs=4] [--devices=8]
                                            [--repetitions=3]

The same trials of the MNIST-1D MLP train one after the other: in one process, sharded over its
devices, of which there may be more than cores; and in a process a core, with a share of the trials
each, as a study's workers are on a CPU. ``speed`` is of the first against the second: steps a
second while they train, and the whole with imports and compilation; compiled programs are not kept.
``results`` counts the values (training and validation metrics at each evaluation) that differ from
those on one device: one after the other, and side by side, where products of another width may be
summed in another order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from models import EXPERIMENTS
from recording import spread, write

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SCAN, VMAP = "scan", "vmap"


def train(trials: list[int], epochs: int, mode: str) -> dict[str, Any]:
    """Trains a population on this process's devices; returns its steps, seconds and values."""
    import jax

    from jdlopt import memory
    from jdlopt.study import structure
    from jdlopt.study.population import Cache, Population
    from jdlopt.study.trial import Trial

    memory.keep()
    config = {**EXPERIMENTS["mnist1d_mlp"], "train": {"epochs": epochs}, "mesh": {"data": 1}}
    [one] = structure.build(config)
    rates = {index: 1e-4 * 1.02**index for index in trials}
    trained = [Trial(i, i, None, {"optim.learning_rate": rate}) for i, rate in rates.items()]
    population = Population(
        one,
        trained,
        width=len(trained),
        execution_mode=mode,
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
        "values": [[list(row.values()) for row in trial.rows] for trial in trained],
    }


def start(words: Sequence[str], devices: int, core: int | None) -> subprocess.Popen[str]:
    """Starts a process that trains some trials; on one core, or on all."""
    cores = set(range(CORES)) if core is None else {core}
    flags = f"--xla_force_host_platform_device_count={devices}"
    one_thread = "--xla_cpu_multi_thread_eigen=false"  # as a study's workers, a core each
    return subprocess.Popen(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags} {one_thread}".strip(),
        },
    )


def measured(
    shares: list[list[int]], epochs: int, devices: int, mode: str = SCAN
) -> dict[str, Any]:
    """Trains shares of trials, a process each: steps a second, seconds in all, and the values."""
    begun = time.perf_counter()
    started = [
        start(
            [f"--epochs={epochs}", f"--mode={mode}", f"--train={json.dumps(share)}"],
            devices,
            None if len(shares) == 1 else core,
        )
        for core, share in enumerate(shares)
    ]
    found = []
    for process in started:
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        found.append(json.loads(out.splitlines()[-1]))
    assert all(one["devices"] == devices for one in found)
    steps, training = sum(one["steps"] for one in found), max(one["seconds"] for one in found)
    values = [each for one in found for each in one["values"]]
    wall = time.perf_counter() - begun
    return {"steps_per_second": steps / training, "seconds": wall, "values": values}


def compared(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """Returns how many values differ, and by how much, relative to 1 or to the larger."""
    pairs = [
        (a, b)
        for one, other in zip(found["values"], expected["values"], strict=True)
        for row, same in zip(one, other, strict=True)
        for a, b in zip(row, same, strict=True)
    ]
    apart = [abs(a - b) / max(1.0, abs(b)) for a, b in pairs]
    return {"values": len(pairs), "differ": sum(a != b for a, b in pairs), "most": max(apart)}


def main() -> None:
    """Measures both ways in turn and writes them."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--trials", type=int, default=256)
    words.add_argument("--epochs", type=int, default=4)
    words.add_argument("--devices", type=int, default=8)
    words.add_argument("--repetitions", type=int, default=3)
    words.add_argument("--mode", default=SCAN, help=argparse.SUPPRESS)
    words.add_argument("--train", type=json.loads, help=argparse.SUPPRESS)
    flags = words.parse_args()
    if flags.train is not None:
        print(json.dumps(train(flags.train, flags.epochs, flags.mode)))
        return
    load = os.getloadavg()[0]
    everything = list(range(flags.trials))
    ways = {
        f"one process, {flags.devices} devices": ([everything], flags.devices),
        "a process a core": ([everything[core::CORES] for core in range(CORES)], 1),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(flags.repetitions):
        for name, (shares, devices) in ways.items():
            runs[name].append(measured(shares, flags.epochs, devices))
            told = {key: value for key, value in runs[name][-1].items() if key != "values"}
            print(name, told, flush=True)
    many, processes = runs.values()
    results = {SCAN: compared(many[0], measured([everything], flags.epochs, 1))}
    beside = [measured([everything], flags.epochs, count, VMAP) for count in (flags.devices, 1)]
    results[VMAP] = compared(*beside)
    print(results, flush=True)
    pairs = list(zip(many, processes, strict=True))
    record = {
        "load_before": load,
        "trials": flags.trials,
        "epochs": flags.epochs,
        "devices_of_one_process": flags.devices,
        **{
            key: {name: spread([one[key] for one in found]) for name, found in runs.items()}
            for key in ("steps_per_second", "seconds")
        },
        "speed": {
            "training": spread([a["steps_per_second"] / b["steps_per_second"] for a, b in pairs]),
            "whole": spread([b["seconds"] / a["seconds"] for a, b in pairs]),
        },
        "results": results,
    }
    write("population", record)


if __name__ == "__main__":
    main()
