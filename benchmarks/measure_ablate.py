"""Measures techniques of the catalogue, each alone on a plain config, for docs/techniques.md.

    python benchmarks/measure_ablate.py [--seeds=10] [NAME …]

The baselines are a plain perceptron on MNIST-1D and a plain small CNN on digits, 20 epochs each.
Every technique that aims at accuracy, generalisation or robustness is taken with its first variant,
at the baseline's own learning rate where it does not set another. The same seeds on all sides;
intervals are paired, decisions corrected for their number (Holm). The test split is not used.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from recording import write

from jdlopt.errors import UserError
from jdlopt.evidence import statistics, techniques
from jdlopt.evidence.compare import decide, gains, summary_of
from jdlopt.evidence.rounds import LIKED
from jdlopt.evidence.sides import check_pair, metric_of, resolution_of, side_of
from jdlopt.evidence.trainer import Trainer, key_of

BASELINES: dict[str, dict[str, Any]] = {
    "mnist1d_plain_mlp": {
        "data": {"source": "mnist1d", "batch_size": 100},
        "model": {"name": "mlp", "features": (100, 100)},
        "train": {"epochs": 20},
    },
    "digits_plain_cnn": {
        "data": {"source": "digits", "batch_size": 64, "test_fraction": 0.2},
        "model": {"name": "cnn", "features": (16, 32)},
        "train": {"epochs": 20},
    },
}


def measure(name: str, seeds: int, folder: Path) -> dict[str, Any]:
    """Returns what each technique gains on one baseline."""
    base = side_of(BASELINES[name])
    facts, metric = techniques.facts_of(base.config, base.dataset), metric_of(base, None)
    arms = {}
    for one in techniques.applicable(base.config, facts):
        change = techniques.change(one.name, base.config, facts)[0]
        if LIKED.isdisjoint(one.aims):
            continue
        try:
            side = side_of(base.raw, change)
            check_pair(base, side, metric)
        except UserError as error:
            print(f"{one.name}: left out: {error}")
            continue
        arms[one.name] = (side, change)
    with Trainer(folder) as trainer:
        sides = [base, *(side for side, _ in arms.values())]
        trained = trainer.train([(side.config, range(seeds)) for side in sides])
    resolution, rows, effects = resolution_of(metric, base.dataset), {}, {}
    for technique, (side, change) in arms.items():
        own = trained[key_of(side.config)]
        found = gains(trained[key_of(base.config)], own, metric, range(seeds))
        rows[technique] = {"gain": None, "interval": None, "seeds": seeds, "decision": "drop",
                           "change": change}  # fmt: skip
        if found is not None:
            effects[technique] = statistics.fixed_effect(found, resolution=resolution)
    adjusted = statistics.holm({key: one.p_value for key, one in effects.items()})
    for technique, effect in effects.items():
        decision = decide(effect)
        if decision == "adopt" and adjusted[technique] >= 0.05:
            decision = "undecided"
        rows[technique] |= {
            "gain": effect.mean,
            "interval": [effect.low, effect.high],
            "adjusted_p_value": adjusted[technique],
            "decision": decision,
        }
    order = sorted(rows, key=lambda key: -(rows[key]["gain"] or -1.0))
    return {
        "baseline": name,
        "config": BASELINES[name],
        "metric": metric,
        "reached": summary_of(trained[key_of(base.config)], metric)["mean"],
        "techniques": {key: rows[key] for key in order},
    }


def main() -> None:
    """Measures the named baselines and writes one file each."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=10)
    words.add_argument("names", nargs="*", default=list(BASELINES))
    flags = words.parse_args()
    for name in flags.names:
        with tempfile.TemporaryDirectory() as folder:
            write(f"ablate_{name}", measure(name, flags.seeds, Path(folder)))


if __name__ == "__main__":
    main()
