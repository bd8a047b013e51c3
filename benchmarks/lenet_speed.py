"""How long a sweep of sparsities takes by one compiled program, and by PyTorch one by one.

`measure_lenet.py --time` calls it. Run by itself, this file is the process that trains:

    python benchmarks/lenet_speed.py NPZ EPOCHS SEEDS
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from recording import spread

CONFIG = Path(__file__).parents[1] / "configs/image/mnist_lenet.py"
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
PEER_SPARSITIES = (0.0, 0.95)
"""Those that the peer is timed at: without pruning, and for the others, which cost the same."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PEERS = {"a process a core": CORES, "one process": 1}
"""How the peer's trainings are spread, and over how many processes."""
LOGGED = {
    "compiled": re.compile("PERSISTENT COMPILATION CACHE MISS for 'jit_trained'"),
    "loaded": re.compile("Persistent compilation cache hit for 'jit_trained'"),
}
"""What jax logs of the program that trains a population."""


def config_of(source: Path, epochs: int) -> dict[str, Any]:
    """Returns the config on MNIST in a file, for so many epochs."""
    import jdlopt
    from jdlopt import config as configs

    changes = {"data.source": str(source), "train.epochs": epochs, "train.evaluate_test": False,
               "train.tensorboard": False}  # fmt: skip
    return configs.to_dict(jdlopt.load(str(CONFIG), changes))


def train(source: Path, epochs: int, seeds: range) -> dict[str, Any]:
    """Trains every sparsity and seed; returns what each sparsity comes to, and what it took."""
    from jdlopt import config as configs
    from jdlopt.evidence.trainer import Trainer, key_of
    from jdlopt.train.experiment import Experiment

    first = Experiment.build(config_of(source, epochs))
    swept = {
        one: Experiment.build(
            configs.override(first.config, {"model.prune.sparsity": one}), first.data, check=False
        ).config
        for one in SPARSITIES
    }
    with tempfile.TemporaryDirectory() as folder, Trainer(Path(folder), workers=CORES) as trainer:
        trained = trainer.train([(config, seeds) for config in swept.values()])
        seconds = dict(trainer.seconds)
    accuracy = {}
    for sparsity, config in swept.items():
        own = trained[key_of(config)]
        assert all(own[seed].status == "done" for seed in seeds)
        accuracy[str(sparsity)] = float(
            np.mean([one.metrics["validation/accuracy"] for one in own.values()])
        )
    runs, steps = len(SPARSITIES) * len(seeds), first.total_steps
    step = 1e6 * seconds["training"] / (runs * steps)  # a worker's, each on a core
    return {"runs": runs, "steps": steps, "step_microseconds": step, "accuracy": accuracy,
            "worker_seconds": seconds}  # fmt: skip


def ours(source: Path, epochs: int, seeds: int) -> dict[str, Any]:
    """Returns what `train` says in processes of its own that find no program compiled before.

    Beside it stand the seconds of the whole, and how often the program that trains was compiled,
    and loaded by another worker that found it compiled.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache,
                       "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
                       "JAX_EXPLAIN_CACHE_MISSES": "1", "JAX_LOG_COMPILES": "1"}  # fmt: skip
        command = [sys.executable, __file__, str(source), str(epochs), str(seeds)]
        began = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        **json.loads(done.stdout.splitlines()[-1]),
        **{how: len(pattern.findall(done.stderr)) for how, pattern in LOGGED.items()},
    }


def theirs(source: Path, epochs: int, processes: int) -> dict[str, Any]:
    """Returns the seconds of a training by PyTorch, so many processes at work on the cores."""
    peer = Path(__file__).with_name("lenet_peer.py")
    words = [str(source), str(epochs), str(CORES // processes), *map(str, PEER_SPARSITIES)]
    started = [
        subprocess.Popen([sys.executable, str(peer), *words], stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    found = []
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 0
        found.append(json.loads(out.splitlines()[-1]))
    dense, pruned = np.mean([one["seconds"] for one in found], axis=0)
    share = 1 / len(SPARSITIES)
    each = float(share * dense + (1 - share) * pruned) / processes
    return {"training": each, "torch": found[0]["torch"], "accuracy": found[0]["accuracy"]}


def timed(
    source: Path, epochs: int, seeds: int, repetitions: int, before: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the seconds of all trainings, and of as many by PyTorch, measured in turn.

    Args:
      source: MNIST as a file.
      epochs: of each training.
      seeds: how many each sparsity is trained with.
      repetitions: to add.
      before: earlier ones of as many epochs and seeds.
    """
    found = list(before)
    for _ in range(repetitions):
        one: dict[str, Any] = {"ours": ours(source, epochs, seeds)}
        one |= {name: theirs(source, epochs, processes) for name, processes in PEERS.items()}
        print(one, flush=True)
        found.append(one)
    own = [one["ours"] for one in found]
    runs = own[0]["runs"]
    record: dict[str, Any] = {
        "runs": runs,
        "epochs": epochs,
        "steps": own[0]["steps"],
        "seconds": spread([one["seconds"] for one in own]),
        "step_microseconds": spread([one["step_microseconds"] for one in own]),
        "compilations_of_the_step": max(one["compiled"] for one in own),
        "loaded_by_another_worker": max(one["loaded"] for one in own),
        "torch": found[0][next(iter(PEERS))]["torch"],
        "peers": {},
    }
    for name in PEERS:
        each = [one[name]["training"] for one in found]
        seconds = [runs * one for one in each]
        ratio = [other / mine["seconds"] for other, mine in zip(seconds, own, strict=True)]
        record["peers"][name] = {
            "training_seconds": spread(each),
            "seconds": spread(seconds),
            "faster": spread(ratio),
            "accuracy": dict(
                zip(map(str, PEER_SPARSITIES), found[0][name]["accuracy"], strict=True)
            ),
        }
    return {**record, "repetitions": found}


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), int(sys.argv[2]), range(int(sys.argv[3])))))
