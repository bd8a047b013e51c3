"""Times a study against Optuna with PyTorch and KerasTuner with Keras on jax: the same trials.

    make bench BENCHMARKS=benchmarks/measure_study.py
    python benchmarks/measure_study.py [--trials=256] [--repetitions=3] [MODEL …]

All wall times are of whole processes, imports and compilation included; jdlopt's cache of compiled
programs is empty at first. Optuna and PyTorch are taken at the better of one process with all
cores and one process a core, each with its share of the trials in memory (a first, short
measurement says which is better). KerasTuner compiles every trial anew; a few trials are measured
and multiplied.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recording import RESULTS, spread, write

HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TARGETS = {"optuna": 6.0, "keras": 12.0, "outside_share": 0.1, "growth": 1.1}


def python(*words: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a Python process whose stdout is read."""
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> dict:
    """Waits for a process; returns the JSON object of its last line."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(out.strip().splitlines()[-1])


def jdlopt(name: str, seed: int, *flags: str) -> dict:
    """Runs one study of jdlopt; returns its wall time, best value, trials and where time went."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        record = finished(
            python(
                "-m", "jdlopt.cli", "tune", f"--config={HERE / 'study_config.py'}:{name}",
                f"--workdir={folder}/study", f"--seed={seed}", "--json", "--keep=0", "--no-report",
                *flags, PYTHONPATH=str(HERE), JAX_COMPILATION_CACHE_DIR=f"{folder}/programs",
                JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.3",
            )
        )  # fmt: skip
        wall = time.perf_counter() - start
    best = record["trials"][record["best"]]["values"][0]
    done = sum(trial["state"] == "done" for trial in record["trials"])
    counted = {"trials": len(record["trials"]), "done": done}
    return {"seconds": wall, "best": best, **counted, **record["time"]}


def jdlopt_trials(name: str, trials: int, seed: int) -> dict:
    """Runs one study of so many random points."""
    return jdlopt(name, seed, f"--trials={trials}", "--sampler=random")


def optuna(name: str, trials: int, seed: int, processes: int, *seconds: float) -> dict:
    """Runs one study of Optuna and PyTorch, shared by processes.

    Args:
      name: the model.
      trials: random points in all; with ``seconds``, it searches by TPE so long instead.
      seed: of the first process.
      processes: each has a study of its own.
    """
    threads = str(CORES if processes == 1 else 1)
    start = time.perf_counter()
    started = [
        python(
            str(HERE / "study_peers.py"), "optuna", name, str(trials // processes),
            str(1000 * seed + index), threads, *map(str, seconds), OMP_NUM_THREADS=threads,
        )
        for index in range(processes)
    ]  # fmt: skip
    found = [finished(process) for process in started]
    return {
        "seconds": time.perf_counter() - start,
        "best": max(one["best"] for one in found),
        "trials": sum(one["trials"] for one in found),
    }


def keras(name: str, trials: int, seed: int) -> dict:
    """Runs one study of KerasTuner; returns its wall time and what it took after the imports."""
    start = time.perf_counter()
    found = finished(python(str(HERE / "study_peers.py"), "keras", name, str(trials), str(seed)))
    return {"wall": time.perf_counter() - start, **found}


def compared(name: str, flags: argparse.Namespace) -> dict:
    """Measures one model against both peers, in turn."""
    processes = flags.processes
    if processes is None:
        short = {count: optuna(name, 8 * CORES, 99, count)["seconds"] for count in {1, CORES}}
        processes = min(short, key=lambda count: short[count])
        print(f"{name}: PyTorch is faster with {processes} processes: {short}", flush=True)
    ours, theirs = [], []
    for seed in range(flags.repetitions):
        ours.append(jdlopt_trials(name, flags.trials, seed))
        theirs.append(optuna(name, flags.trials, seed, processes))
        ratio = theirs[-1]["seconds"] / ours[-1]["seconds"]
        print(f"{name}: {ours[-1]['seconds']:.1f} s, PyTorch {theirs[-1]['seconds']:.1f} s, "
              f"{ratio:.2f} ×, outside {ours[-1]['outside_share']:.1%}", flush=True)  # fmt: skip
    found = {
        "trials": flags.trials,
        "jdlopt": {"seconds": spread([one["seconds"] for one in ours]), "runs": ours},
        "optuna": {
            "processes": processes,
            "seconds": spread([one["seconds"] for one in theirs]),
            "best": [one["best"] for one in theirs],
        },
        "ratio": spread([b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]),
        "outside_share": spread([one["outside_share"] for one in ours]),
    }
    if flags.keras_trials:
        one = keras(name, flags.keras_trials, 0)
        started = one["wall"] - one["seconds"]
        whole = started + one["seconds"] * flags.trials / flags.keras_trials
        found["keras"] = {
            "measured_trials": flags.keras_trials,
            "measured_seconds": one["wall"],
            "seconds": whole,
            "ratio": whole / found["jdlopt"]["seconds"]["median"],
        }
        print(f"{name}: KerasTuner {found['keras']}", flush=True)
    return found


def grown() -> dict:
    """Measures 64 and 1,000 trials of the MLP: how the time grows."""
    few, many = (jdlopt_trials("mnist1d_mlp", count, 0) for count in (64, 1000))
    linear = few["seconds"] * 1000 / 64
    print(f"64 trials {few['seconds']:.1f} s, 1,000 trials {many['seconds']:.1f} s", flush=True)
    return {"few": few, "many": many, "against_linear": many["seconds"] / linear}


def main() -> None:
    """Measures the named models, then how the time grows, and writes everything."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--trials", type=int, default=256)
    words.add_argument("--repetitions", type=int, default=3)
    words.add_argument("--keras-trials", type=int, default=16)
    words.add_argument("--processes", type=int, help="PyTorch's; measured by default")
    words.add_argument("--no-growth", action="store_true", help="leave 64 and 1,000 trials out")
    words.add_argument("names", nargs="*", default=["mnist1d_mlp", "mnist1d_cnn"])
    flags = words.parse_args()
    path = RESULTS / "study.json"
    found = json.loads(path.read_text()) if path.exists() else {"studies": {}, "growth": None}
    kept = {"studies": found["studies"], "growth": found["growth"]}
    for name in flags.names:
        kept["studies"][name] = compared(name, flags)
        write("study", {"targets": TARGETS, **kept})
    if not flags.no_growth:
        kept["growth"] = grown()
        write("study", {"targets": TARGETS, **kept})


if __name__ == "__main__":
    main()
