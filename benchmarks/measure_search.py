"""Compares what studies find in equal wall time: jdlopt against Optuna's TPE with PyTorch.

    make bench BENCHMARKS=benchmarks/measure_search.py
    python benchmarks/measure_search.py [--seconds=180] [--studies=5] [MODEL …]

Both search the space of `study_config.py` for the same time, imports and compilation included; the
figure is the best validation accuracy. jdlopt: TPE with successive halving, its cache of compiled
programs empty at first. The peer: TPE with its median pruner, one process a core, the better of
which counts.
"""

from __future__ import annotations

import argparse
import json

from measure_study import CORES, jdlopt, optuna
from recording import RESULTS, spread, write

from jdlopt.study.records import interval


def main() -> None:
    """Measures the named models, in turn with the peer, and writes the differences."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seconds", type=float, default=180.0)
    words.add_argument("--studies", type=int, default=5)
    words.add_argument("names", nargs="*", default=["mnist1d_mlp", "mnist1d_cnn"])
    flags = words.parse_args()
    path = RESULTS / "search.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    found = before.get("studies", {})  # what was measured of other models stays
    for name in flags.names:
        ours, theirs = [], []
        for seed in range(flags.studies):
            budget = f"--budget={flags.seconds:.0f}s"
            ours.append(jdlopt(name, seed, budget, "--sampler=tpe", "--halving=asha"))
            theirs.append(optuna(name, 0, seed, CORES, flags.seconds))
            print(f"{name}: {ours[-1]} against {theirs[-1]}", flush=True)
        gains = [a["best"] - b["best"] for a, b in zip(ours, theirs, strict=True)]
        found[name] = {
            "jdlopt": {"best": spread([one["best"] for one in ours]), "studies": ours},
            "optuna": {"best": spread([one["best"] for one in theirs]), "studies": theirs},
            "gain": {**spread(gains), "interval": interval(gains)},
        }
    write("search", {"seconds": flags.seconds, "studies": found})


if __name__ == "__main__":
    main()
