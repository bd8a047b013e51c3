"""Measures what `jdlopt improve` makes of plain configs.

    make bench BENCHMARKS=benchmarks/measure_improve.py
    python benchmarks/measure_improve.py [--seconds=900] [--repetitions=5] [--part=NAME …]

mnist1d: a plain perceptron (two layers of 100, Adam), kept a perceptron, against
Optuna's TPE with PyTorch over the family of perceptrons for the same time, one process a core, the
better of which by validation counts. Both may change the model and how it is trained; only ours
knows augmentations and averages of parameters, which a user of the peer would have to write. The
figure is the test accuracy of what each ends with, over five fresh seeds. Repetitions that were
recorded with the same time count: more are added to them.

digits, breast_cancer, diabetes: a plain perceptron, any technique, against itself on the test
split. mnist1d_cnn: the same of a plain convolutional network.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recording import RESULTS, spread, write

from jdlopt.study.records import interval

HERE = Path(__file__).resolve().parent
CORES = os.cpu_count() or 1
FAMILY = (
    "data,wider,narrower,deeper,shallower,activation,initializer,batch_norm,regularisation,loss,"
    "optimisation"
)
"""What leaves a perceptron one."""
PLAIN = '''"""A plain network."""


def get_config():
    return {{
        "seed": {seed},
        "data": {{"source": "{source}", "batch_size": {batch}{more}}},
        "model": {model},
        {loss}"train": {{"epochs": 20}},
    }}
'''
MLP = '{"name": "mlp", "features": (100, 100)}'
CNN = '{"name": "cnn", "features": (16, 32)}'
UNSCALED = ', "preprocess": {"target_scale": None}'
SOURCES = {
    "digits": {"batch": 64, "more": ', "test_fraction": 0.2'},
    "breast_cancer": {"batch": 32},
    "diabetes": {"batch": 32, "more": UNSCALED, "loss": '"loss": {"name": "mse"},\n        '},
    "mnist1d_cnn": {"source": "mnist1d", "batch": 100, "model": CNN},
}


def improve(seconds: float, folder: Path, *more: str, **parts: Any) -> dict[str, Any]:
    """Runs ``jdlopt improve`` on a plain config; returns its record and the time that it took."""
    folder.mkdir(parents=True)
    file = folder / "plain.py"
    usual = {"seed": 0, "model": MLP, "more": "", "loss": ""}
    file.write_text(PLAIN.format(**{**usual, **parts}), encoding="utf-8")
    started = time.perf_counter()
    command = [
        sys.executable, "-m", "jdlopt.cli", "improve", f"--config={file}", "--json", "--no-report",
        f"--workdir={folder / 'work'}", f"--budget={seconds:.0f}s", *more,
    ]  # fmt: skip
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env=environment, cwd=HERE.parent
    )
    record = json.loads(output.stdout)
    steps = [
        {"technique": one["technique"], "gain": one["effect"]["mean"],
         "interval": one["effect"]["interval"]}
        for one in record["steps"]
    ]  # fmt: skip
    return {
        "seconds": time.perf_counter() - started,
        "why": record["why"],
        "steps": steps,
        "confirmed": record["confirmed"],
        "test": record["test"],
    }


def peer(seconds: float, seed: int) -> dict[str, Any]:
    """Runs the peer on every core; returns the study that was best on the validation split."""
    started = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "improve_peer.py"), str(seconds), str(100 * seed + index)],
            stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=HERE,
        )
        for index in range(CORES)
    ]  # fmt: skip
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    best = max(found, key=lambda one: one["validation"])
    trials = sum(one["trials"] for one in found)
    return {**best, "trials": trials, "seconds": time.perf_counter() - started}


def against_peer(
    seconds: float, repetitions: int, folder: Path, before: dict[str, Any]
) -> dict[str, Any]:
    """Measures MNIST-1D, in turn with the peer; goes on from earlier repetitions."""
    same = before.get("seconds") == seconds
    ours, theirs = (list(before[side]) if same else [] for side in ("ours", "peer"))
    for turn in range(len(ours), repetitions):
        ours.append(improve(seconds, folder / f"mnist1d-{turn}", f"--techniques={FAMILY}",
                            source="mnist1d", batch=100, seed=turn))  # fmt: skip
        theirs.append(peer(seconds, turn))
        test = ours[-1]["test"]
        mean = statistics.fmean(test["improved"]) if test else None
        print(f"mnist1d: {mean} against {statistics.fmean(theirs[-1]['test'])}", flush=True)
    reached = [statistics.fmean(one["test"]["improved"]) for one in ours if one["test"] is not None]
    peers = [statistics.fmean(one["test"]) for one in theirs]
    record: dict[str, Any] = {
        "seconds": seconds, "ours": ours, "peer": theirs,
        "improved": spread(reached) if reached else None, "optuna": spread(peers),
        "baseline": spread([statistics.fmean(one["test"]["baseline"]) for one in ours
                            if one["test"]]) if reached else None,
    }  # fmt: skip
    if len(reached) == len(peers):
        gains = [a - b for a, b in zip(reached, peers, strict=True)]
        several = {"interval": interval(gains)} if len(gains) > 1 else {}
        record["gain"] = {**spread(gains), **several}
    return record


def main() -> None:
    """Measures the parts; one that is not asked for stays as it was."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seconds", type=float, default=900.0)
    words.add_argument("--repetitions", type=int, default=5)
    words.add_argument("--part", action="append", choices=("mnist1d", *SOURCES))
    flags = words.parse_args()
    parts = flags.part or ["mnist1d", *SOURCES]
    path = RESULTS / "improve.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    found = before.get("parts", {})
    with tempfile.TemporaryDirectory() as name:
        for part in parts:
            if part == "mnist1d":
                found[part] = against_peer(
                    flags.seconds, flags.repetitions, Path(name), found.get(part, {})
                )
            else:
                keys = {"source": part, **SOURCES[part]}
                made = improve(flags.seconds, Path(name) / part, **keys)
                found[part] = {"budget": flags.seconds, **made}
                print(part, made["test"] and made["test"]["effect"], made["steps"], flush=True)
            write("improve", {"parts": found})


if __name__ == "__main__":
    main()
