"""Trains configs/image/mnist_cnn.py with and without its augmentation, seed by seed.

    python benchmarks/measure_mnist.py [--seeds=5] [--data_dir=DIR] [--keep=DIR]

Records the test accuracy of both and the paired gain with its 95 % interval (Student's t). One run
a core; runs kept in --keep are not trained again. MNIST has to be prepared once, as docs/data.md
says. Nothing of the test split was used to choose the config.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import numpy as np
from recording import spread, write

from jdlopt.study.records import interval

CONFIG = Path(__file__).parent.parent / "configs/image/mnist_cnn.py"
VARIANTS = {"augmented": "", "plain": ":plain"}


def train(workdir: Path, variant: str, seed: int, data_dir: str | None, core: int) -> dict:
    """Trains one run in a process of its own, kept to one core; returns its record."""
    command = [
        sys.executable, "-m", "jdlopt.cli", "train", f"--config={CONFIG}{VARIANTS[variant]}",
        f"--config.seed={seed}", f"--workdir={workdir}", "--json",
    ]  # fmt: skip
    if data_dir:
        command.append(f"--config.data.data_dir={data_dir}")
    result = workdir / "result.json"
    if not result.exists() or json.loads(result.read_text())["status"] != "done":
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    record = json.loads(result.read_text())
    accuracy = record["metrics"]["test/accuracy"]
    print(f"{variant} seed {seed}: {accuracy:.4f} {record['wall_seconds']:.0f} s", flush=True)
    return record


def paired(gains: list[float]) -> dict:
    """Returns the mean gain and its 95 % interval."""
    return {"mean": float(np.mean(gains)), "interval": interval(gains), "values": gains}


def main() -> None:
    """Trains every run, one a core, and writes the result."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--data_dir", default=os.environ.get("TFDS_DATA_DIR"))
    flags.add_argument("--keep", type=Path)
    chosen = flags.parse_args()
    keep = chosen.keep or Path(tempfile.mkdtemp(prefix="measure-mnist-"))
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def one(job: tuple[str, int]) -> dict:
        variant, seed = job
        core = cores.get()
        try:
            return train(keep / f"{variant}-{seed}", variant, seed, chosen.data_dir, core)
        finally:
            cores.put(core)

    jobs = [(variant, seed) for seed in range(chosen.seeds) for variant in VARIANTS]
    with ThreadPoolExecutor(cores.qsize()) as pool:
        records = dict(zip(jobs, pool.map(one, jobs)))
    sides = {
        variant: [records[variant, seed] for seed in range(chosen.seeds)] for variant in VARIANTS
    }
    accuracies = {
        variant: [record["metrics"]["test/accuracy"] for record in side]
        for variant, side in sides.items()
    }
    gains = [a - b for a, b in zip(accuracies["augmented"], accuracies["plain"])]
    first = sides["augmented"][0]
    write(
        "mnist",
        {
            "config": "configs/image/mnist_cnn.py",
            "seeds": list(range(chosen.seeds)),
            "n_params": first["n_params"],
            "steps": first["total_steps"],
            "test_accuracy": {variant: spread(found) for variant, found in accuracies.items()},
            "gain": paired(gains),
            "wall_seconds": {
                variant: spread([record["wall_seconds"] for record in side])
                for variant, side in sides.items()
            },
        },
    )


if __name__ == "__main__":
    main()
