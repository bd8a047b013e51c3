"""Trains configs/image/mnist_cnn.py with and without its augmentation, seed by seed.

    python benchmarks/measure_mnist.py [--seeds=5] [--data_dir=DIR] [--keep=DIR] [--continue]
    python benchmarks/measure_mnist.py --model=resnet […]

Records the test accuracy of both and the paired gain with its 95 % interval (Student's t); of
configs/image/mnist_resnet.py the accuracy alone, with its 95 % interval, of the last weights and of
those that were best on the validation split. One run a core; runs kept in --keep are not trained
again. --continue takes the seeds of the last record over as they are, if it was made with the same
config and versions, and trains the others. MNIST has to be prepared once, as docs/data.md says.
Nothing of the test split was used to choose the config.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from recording import RESULTS, machine, spread, write

from jdlopt.config import load
from jdlopt.study.records import interval

CONFIGS = Path(__file__).parent.parent / "configs"
VARIANTS = {"cnn": {"augmented": "", "plain": ":plain"}, "resnet": {"best": ""}}
"""By model, the variants of its config; the accuracies are those of the best checkpoint."""
RECORDS = {"cnn": "mnist", "resnet": "mnist_resnet"}


def train(
    config: str, workdir: Path, variant: str, seed: int, data_dir: str | None, core: int
) -> dict:
    """Trains one run in a process of its own, kept to one core; returns its record."""
    command = [
        sys.executable, "-m", "jdlopt.cli", "train", f"--config={CONFIGS / config}",
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


def of_last_weights(workdir: Path) -> float:
    """Returns the test accuracy of a run's newest checkpoint."""
    command = [
        sys.executable, "-m", "jdlopt.cli", "eval", f"--workdir={workdir}", "--json",
        "--checkpoint=newest", "--split=test",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["metrics"]["test/accuracy"]


def paired(gains: list[float]) -> dict:
    """Returns the mean gain and its 95 % interval."""
    return {"mean": float(np.mean(gains)), "interval": interval(gains), "values": gains}


def recorded(model: str, config_sha256: str) -> dict[tuple[str, int], tuple[float, float]]:
    """Returns test accuracy and seconds of the last record's runs, if they can be taken over."""
    path = RESULTS / f"{RECORDS[model]}.json"
    last = json.loads(path.read_text()) if path.exists() else {}
    alike = last.get("config_sha256") == config_sha256 and last["versions"] == machine()["versions"]
    if not alike:
        return {}
    return {
        (variant, seed): (
            last["test_accuracy"][variant]["values"][place],
            last["wall_seconds"][variant]["values"][place],
        )
        for variant in VARIANTS[model]
        for place, seed in enumerate(last["seeds"])
    }


def main() -> None:
    """Trains every run, one a core, and writes the result."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--model", choices=VARIANTS, default="cnn")
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--data_dir", default=os.environ.get("TFDS_DATA_DIR"))
    flags.add_argument("--keep", type=Path)
    flags.add_argument("--continue", dest="go_on", action="store_true")
    chosen = flags.parse_args()
    variants = VARIANTS[chosen.model]
    if chosen.go_on and chosen.model == "resnet":
        flags.error("--continue: last weights are in a run alone; name the runs' folder by --keep")
    file = f"image/mnist_{chosen.model}.py"
    keep = chosen.keep or Path(tempfile.mkdtemp(prefix="measure-mnist-"))
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def one(job: tuple[str, int]) -> dict:
        variant, seed = job
        core = cores.get()
        try:
            config = f"{file}{variants[variant]}"
            return train(config, keep / f"{variant}-{seed}", variant, seed, chosen.data_dir, core)
        finally:
            cores.put(core)

    configs = [
        load(f"{CONFIGS / file}{argument}").to_json(sort_keys=True)
        for argument in variants.values()
    ]
    config_sha256 = hashlib.sha256("".join(configs).encode()).hexdigest()
    known = recorded(chosen.model, config_sha256) if chosen.go_on else {}
    wanted = [(variant, seed) for seed in range(chosen.seeds) for variant in variants]
    jobs = [job for job in wanted if job not in known]
    if not jobs:
        sys.exit("every seed is recorded; name more --seeds, or leave --continue out")
    with ThreadPoolExecutor(cores.qsize()) as pool:
        records = list(pool.map(one, jobs))
    for job, record in zip(jobs, records):
        known[job] = record["metrics"]["test/accuracy"], record["wall_seconds"]
    accuracies, seconds = (
        {
            variant: [known[variant, seed][part] for seed in range(chosen.seeds)]
            for variant in variants
        }
        for part in (0, 1)
    )
    told: dict[str, Any] = {}
    if "plain" in accuracies:
        gains = [a - b for a, b in zip(accuracies["augmented"], accuracies["plain"])]
        told = {"gain": paired(gains)}
    else:
        accuracies["last"] = [of_last_weights(keep / f"best-{s}") for s in range(chosen.seeds)]
        told = {"interval": interval(accuracies["last"])}
    write(
        RECORDS[chosen.model],
        {
            "config": f"configs/{file}",
            "seeds": list(range(chosen.seeds)),
            "config_sha256": config_sha256,
            "n_params": records[0]["n_params"],
            "steps": records[0]["total_steps"],
            "test_accuracy": {variant: spread(found) for variant, found in accuracies.items()},
            **told,
            "wall_seconds": {variant: spread(found) for variant, found in seconds.items()},
        },
    )


if __name__ == "__main__":
    main()
