"""Measures whether comparisons are honest: false positives, power, and what they cost.

    make bench BENCHMARKS=benchmarks/measure_compare.py
    python benchmarks/measure_compare.py [--comparisons=400] [--part=honesty|claims|speed …]

Honesty, on real trainings of a small perceptron on breast_cancer: comparisons of a config with
itself, on seeds that no two sides share, by both kinds of interval; and of a config with two that
are worse by a gain known from all trainings together, on paired seeds, against the power that
`jdlopt.evidence.statistics.power` claims.

Speed: ``jdlopt compare`` of two MLPs on MNIST-1D with 10 seeds, imports and compilation included,
against 20 ``jdlopt train`` one after the other, and against 20 calls of ``fit`` in one process.
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
from typing import Any

import numpy as np
from recording import RESULTS, spread, write

from jdlopt import config as configs
from jdlopt.evidence import statistics
from jdlopt.evidence.options import ComparisonOptions
from jdlopt.evidence.sides import Side, resolution_of, side_of
from jdlopt.evidence.trainer import Trainer, key_of

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "configs/tabular/breast_cancer_mlp.py"
MLP = ROOT / "configs/sequence/mnist1d_mlp.py"
EPOCHS = 10
PAIRS = 20
SHORT = 20
"""Epochs of each run where time is measured."""
METRICS = ("validation/accuracy", "validation/loss")
WORSE = (0.35, 0.5)
"""The dropout rates of the two worse configs; the better one's is 0.1."""
KINDS = (("sequential", True), ("fixed", False))


def honesty(comparisons: int) -> dict[str, Any]:
    """Returns the share of comparisons that decide, without a difference and with a planted one."""
    base = configs.override(
        configs.load(SMALL), {"train.epochs": EPOCHS, "train.monitor": "validation/loss"}
    )
    a = side_of(base)
    worse = {rate: side_of(base, {"model.dropout_rate": rate}) for rate in WORSE}
    with tempfile.TemporaryDirectory() as folder, Trainer(Path(folder)) as trainer:
        count = comparisons * PAIRS
        trained = trainer.train(
            [(a.config, range(2 * count)), *((b.config, range(count)) for b in worse.values())]
        )

    def measured(side: Side, metric: str) -> np.ndarray:
        own, sign = trained[key_of(side.config)], 1.0 if metric.endswith("accuracy") else -1.0
        return np.array([sign * own[seed].metrics[metric] for seed in sorted(own)])

    found = {}
    for metric in METRICS:
        values, resolution = measured(a, metric), resolution_of(metric, a.dataset)
        same = (values[:count] - values[count:]).reshape(comparisons, PAIRS)
        found[metric] = {
            "a": spread_of(values),
            "false_positives": {
                kind: share(same, sequential, resolution, both=True) for kind, sequential in KINDS
            },
            "planted": [
                {"dropout_rate": rate}
                | planted(values[:count] - measured(b, metric), comparisons, resolution)
                for rate, b in worse.items()
            ],
        }
    return {"config": SMALL.name, "epochs": EPOCHS, "pairs": PAIRS, "metrics": found}


def planted(gains: np.ndarray, comparisons: int, resolution: float) -> dict[str, Any]:
    """Returns how often a gain is found, and how often it is claimed to be."""
    gain, std = float(gains.mean()), float(gains.std(ddof=1))
    return {
        "gain": gain,
        "std_of_a_pair": std,
        **{
            kind: {
                **share(gains.reshape(comparisons, PAIRS), sequential, resolution, both=False),
                "claimed": claimed(gain, std, resolution, sequential),
            }
            for kind, sequential in KINDS
        },
    }


def claimed(gain: float, std: float, resolution: float, sequential: bool) -> float:
    """Returns the power that a comparison would claim for a gain."""
    looks = ComparisonOptions(seeds=PAIRS, fixed=not sequential).looks()
    return statistics.power(gain, std, looks, sequential=sequential, resolution=resolution)


def claims_anew(honest: dict[str, Any]) -> None:
    """Writes the claims of today's code beside what was found; the trainings stay as they were."""
    side = side_of(configs.load(SMALL))
    for metric, record in honest["metrics"].items():
        resolution = resolution_of(metric, side.dataset)
        for one in record["planted"]:
            for kind, sequential in KINDS:
                one[kind]["claimed"] = claimed(
                    one["gain"], one["std_of_a_pair"], resolution, sequential
                )


def spread_of(values: np.ndarray) -> dict[str, float]:
    """Returns mean and standard deviation of many values."""
    return {"mean": float(values.mean()), "std": float(values.std(ddof=1)), "runs": len(values)}


def share(
    differences: np.ndarray, sequential: bool, resolution: float, both: bool
) -> dict[str, Any]:
    """Returns the share of rows that decide, for B alone or either way, and its own interval."""
    from scipy.stats import binomtest

    looks = ComparisonOptions(seeds=differences.shape[1], fixed=not sequential).looks()
    decided, pairs = 0, []
    for row in differences:
        for look in looks:
            effect = statistics.effect_of(row[:look], sequential, resolution=resolution)
            if effect.low > 0 or (both and effect.high < 0):
                decided += 1
                break
        pairs.append(look)
    interval = binomtest(decided, len(differences)).proportion_ci(method="wilson")
    return {
        "share": decided / len(differences),
        "interval": [float(interval.low), float(interval.high)],
        "comparisons": len(differences),
        "mean_pairs": float(np.mean(pairs)),
    }


def speed(repetitions: int) -> dict[str, Any]:
    """Returns seconds of a comparison with 10 seeds and of its 20 runs one by one."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other.py"
        other.write_text(
            MLP.read_text(encoding="utf-8").replace('"dropout_rate": 0.4', '"dropout_rate": 0.2'),
            encoding="utf-8",
        )
        seconds: dict[str, list[float]] = {"compare": [], "train": [], "fit": []}
        jdlopt = [sys.executable, "-m", "jdlopt.cli"]
        for turn in range(repetitions):
            place = Path(folder) / str(turn)
            short = f"--config.train.epochs={SHORT}"
            run = [*jdlopt, "compare", str(MLP), str(other), short, f"--workdir={place / 'both'}",
                   "--seeds=10", "--fixed", "--json", "--no-report"]  # fmt: skip
            seconds["compare"].append(timed([run], place / "compare-cache"))
            runs = [
                [*jdlopt, "train", f"--config={file}", f"--workdir={place / f'{name}-{seed}'}",
                 f"--config.seed={seed}", short, "--json"]
                for seed in range(10)
                for name, file in (("a", MLP), ("b", other))
            ]  # fmt: skip
            seconds["train"].append(timed(runs, place / "train-cache"))
            script = (
                "import sys; from jdlopt import config; from jdlopt.train.loop import fit\n"
                "for seed in range(10):\n"
                "    for name, file in (('a', sys.argv[1]), ('b', sys.argv[2])):\n"
                "        changes = {'seed': seed, 'train.epochs': int(sys.argv[4])}\n"
                "        one = config.override(config.load(file), changes)\n"
                "        fit(one, f'{sys.argv[3]}/fit-{name}-{seed}')\n"
            )
            runs = [[sys.executable, "-c", script, str(MLP), str(other), str(place), str(SHORT)]]
            seconds["fit"].append(timed(runs, place / "fit-cache"))
            print({name: values[-1] for name, values in seconds.items()}, flush=True)
    means = {name: spread(values) for name, values in seconds.items()}
    return {
        "config": MLP.name,
        "epochs": SHORT,
        "seconds": means,
        "of_train": means["compare"]["mean"] / means["train"]["mean"],
        "of_fit": means["compare"]["mean"] / means["fit"]["mean"],
    }


def timed(commands: list[list[str]], cache: Path) -> float:
    """Returns the seconds that commands take, one after the other; no program is kept before."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, cwd=ROOT)  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    """Measures the parts and writes them; a part that is not asked for stays as it was."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--comparisons", type=int, default=400)
    words.add_argument("--repetitions", type=int, default=1)
    words.add_argument("--part", action="append", choices=("honesty", "claims", "speed"))
    flags = words.parse_args()
    parts = flags.part or ["honesty", "speed"]
    record: dict[str, Any] = {}
    if "honesty" in parts:
        record["honesty"] = honesty(flags.comparisons)
        print(record["honesty"], flush=True)
    if "claims" in parts:
        record["honesty"] = json.loads((RESULTS / "compare.json").read_text())["honesty"]
        claims_anew(record["honesty"])
    if "speed" in parts:
        record["speed"] = speed(flags.repetitions)
    write("compare", record, keep=True)


if __name__ == "__main__":
    main()
