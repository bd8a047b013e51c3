"""Measures techniques of the catalogue, each alone on a plain config, for docs/techniques.md.

    python benchmarks/measure_ablate.py [--seeds=10] [NAME …]

The baselines are plain networks on bundled data. Every technique that applies is taken with its
first variant, at the baseline's own learning rate where it does not set another; on three baselines
only a few. The same seeds on all sides; intervals are paired, decisions corrected for their number
(Holm). The test split is not used.

Beside what it gains stands what it costs: the time of a training as a multiple of the baseline's,
and, where a technique is meant to save memory, that of a step as the compiler says it.
"""

from __future__ import annotations

import argparse
import statistics as plain
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from recording import write

from jdlopt.errors import UserError
from jdlopt.evidence import statistics, techniques
from jdlopt.evidence.compare import decide, gains, summary_of
from jdlopt.evidence.sides import (
    check_pair,
    measuring,
    metric_of,
    resolution_of,
    side_of,
    step_memory,
)
from jdlopt.evidence.trainer import Trainer, key_of
from jdlopt.evidence.trainings import Training


class Baseline(NamedTuple):
    """A config, and the techniques that are tried on it: all that apply, unless some are named."""

    config: dict[str, Any]
    only: tuple[str, ...] = ()


BASELINES = {
    "mnist1d_plain_mlp": Baseline(
        {
            "data": {"source": "mnist1d", "batch_size": 100},
            "model": {"name": "mlp", "features": (100, 100)},
            "train": {"epochs": 20},
        }
    ),
    "digits_plain_cnn": Baseline(
        {
            "data": {"source": "digits", "batch_size": 64, "test_fraction": 0.2},
            "model": {"name": "cnn", "features": (16, 32)},
            "train": {"epochs": 20},
        }
    ),
    "breast_cancer_momentum_mlp": Baseline(
        {
            "data": {
                "source": "breast_cancer", "batch_size": 32, "preprocess": {"scale": "standard"},
            },
            "model": {"name": "mlp", "features": (100, 100)},
            "optim": {
                "name": "momentum", "learning_rate": 0.01, "schedule": {"name": "cosine"},
            },
            "train": {"epochs": 20},
        }
    ),
    "diabetes_plain_mlp": Baseline(
        {
            "data": {"source": "diabetes", "batch_size": 32, "preprocess": {"target_scale": None}},
            "model": {"name": "mlp", "features": (100, 100)},
            "loss": {"name": "mse"},
            "train": {"epochs": 20},
        }
    ),
    "mnist1d_plain_gru": Baseline(
        {
            "data": {"source": "mnist1d", "batch_size": 100},
            "model": {"name": "gru", "features": (32,)},
            "train": {"epochs": 20},
        },
        only=("bidirectional", "readout", "dropout", "clip_norm"),
    ),
    "digits_small_resnet": Baseline(
        {
            "data": {"source": "digits", "batch_size": 64, "test_fraction": 0.2},
            "model": {
                "name": "resnet", "stem": "cifar", "stage_sizes": (1, 1, 1),
                "features": (16, 32, 64),
            },
            "train": {"epochs": 20},
        },
        only=("stochastic_depth", "rematerialisation", "accumulation", "bfloat16", "ensemble"),
    ),
    "digits_small_vit": Baseline(
        {
            "data": {"source": "digits", "batch_size": 64, "test_fraction": 0.2},
            "model": {
                "name": "vit", "patch_size": 2, "features": 32, "num_layers": 4, "num_heads": 4,
            },
            "train": {"epochs": 20},
        },
        only=("scan_layers", "rematerialisation", "accumulation", "bfloat16", "layer_decay"),
    ),
}  # fmt: skip


def measure(name: str, seeds: int, folder: Path) -> dict[str, Any]:
    """Returns what each technique gains on one baseline, and what it costs."""
    baseline = BASELINES[name]
    base = side_of(baseline.config)
    facts, metric = techniques.facts_of(base.config, base.dataset), metric_of(base, None)
    base = measuring(base, metric)
    arms = {}
    for one in techniques.applicable(base.config, facts):
        if baseline.only and one.name not in baseline.only:
            continue
        change = techniques.change(one.name, base.config, facts)[0]
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
    before, memory = trained[key_of(base.config)], None
    seconds = seconds_of(before)
    for technique, (side, change) in arms.items():
        own = trained[key_of(side.config)]
        found = gains(before, own, metric, range(seeds))
        took = seconds_of(own)
        rows[technique] = {
            "gain": None, "interval": None, "seeds": seeds, "decision": "drop", "change": change,
            "time": took / seconds if took and seconds else None,
        }  # fmt: skip
        if "memory" in techniques.find(technique).aims:
            memory = memory or step_memory(base)
            rows[technique]["memory"] = step_memory(side) / memory
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
    order = sorted(
        rows, key=lambda key: -(rows[key]["gain"] if key in effects else float("-inf"))
    )  # those that diverged come last
    return {
        "baseline": name,
        "config": baseline.config,
        "metric": metric,
        "reached": summary_of(before, metric)["mean"],
        "techniques": {key: rows[key] for key in order},
    }


def seconds_of(trainings: dict[int, Training]) -> float | None:
    """Returns the mean seconds of a training, without compiling; None where it is not known."""
    known = [t.steps * t.step_seconds for t in trainings.values() if t.step_seconds and t.steps]
    return plain.fmean(known) if known else None


def main() -> None:
    """Measures the named baselines and writes one file each."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=10)
    words.add_argument("names", nargs="*", default=list(BASELINES), metavar="NAME")
    flags = words.parse_args()
    unknown = sorted(set(flags.names) - set(BASELINES))
    if unknown:
        words.error(f"{unknown[0]} is none of {', '.join(BASELINES)}.")
    for name in flags.names:
        with tempfile.TemporaryDirectory() as folder:
            write(f"ablate_{name}", measure(name, flags.seeds, Path(folder)))


if __name__ == "__main__":
    main()
