"""Compares what studies find in equal wall time: jdlopt against Optuna's TPE with PyTorch.

    make bench BENCHMARKS=benchmarks/measure_search.py
    python benchmarks/measure_search.py [--seconds=180] [--studies=5] [MODEL …]

Both search the space of `study_config.py` for the same time, imports and compilation included; the
figure is the best validation accuracy. jdlopt: TPE with successive halving, its cache of compiled
programs off. The peer: TPE with its median pruner, one process a core, the better of which counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

from measure_study import CORES, HERE, finished, python
from recording import spread, write

from jdlopt.study.records import interval


def jdlopt(name: str, seconds: float, seed: int) -> dict:
    """Runs one study of jdlopt; returns its best value, trials and wall time."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        record = finished(
            python(
                "-m", "jdlopt.cli", "tune", f"--config={HERE / 'study_config.py'}:{name}",
                f"--workdir={folder}/study", f"--budget={seconds:.0f}s", f"--seed={seed}",
                "--sampler=tpe", "--halving=asha", "--keep=0", "--no-report", "--json",
                JAX_COMPILATION_CACHE_DIR=f"{folder}/programs",
                JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.3", PYTHONPATH=str(HERE),
            )
        )  # fmt: skip
        wall = time.perf_counter() - start
    best = record["trials"][record["best"]]["values"][0]
    return {"best": best, "trials": len(record["trials"]), "seconds": wall}


def optuna(name: str, seconds: float, seed: int) -> dict:
    """Runs one process a core of Optuna's TPE with PyTorch; returns the best of them."""
    start = time.perf_counter()
    started = [
        python(
            str(HERE / "study_peers.py"), "optuna", name, "0", str(1000 * seed + index), "1",
            str(seconds), OMP_NUM_THREADS="1",
        )
        for index in range(CORES)
    ]  # fmt: skip
    found = [finished(process) for process in started]
    return {
        "best": max(one["best"] for one in found),
        "trials": sum(one["trials"] for one in found),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Measures the named models, in turn with the peer, and writes the differences."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seconds", type=float, default=180.0)
    words.add_argument("--studies", type=int, default=5)
    words.add_argument("names", nargs="*", default=["mnist1d_mlp", "mnist1d_cnn"])
    flags = words.parse_args()
    found = {}
    for name in flags.names:
        ours, theirs = [], []
        for seed in range(flags.studies):
            ours.append(jdlopt(name, flags.seconds, seed))
            theirs.append(optuna(name, flags.seconds, seed))
            print(f"{name}: {ours[-1]} against {theirs[-1]}", flush=True)
        gains = [a["best"] - b["best"] for a, b in zip(ours, theirs, strict=True)]
        found[name] = {
            "jdlopt": {"best": spread([one["best"] for one in ours]), "studies": ours},
            "optuna": {"best": spread([one["best"] for one in theirs]), "studies": theirs},
            "gain": {**spread(gains), "interval": interval(gains)},
        }
    write("search", {"seconds": flags.seconds, "cores": os.cpu_count(), "studies": found})


if __name__ == "__main__":
    main()
