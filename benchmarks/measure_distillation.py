"""Distillation of a perceptron on MNIST-1D: what it gains, and what `compare` makes of it.

    make bench BENCHMARKS=benchmarks/measure_distillation.py
    python benchmarks/measure_distillation.py [--seeds=5] [--keep=DIR]

The student is a plain perceptron (two layers of 100, Adam). Its teachers are the convolutional
networks of configs/sequence/mnist1d_cnn.py, one, or three whose mean teaches; with shifts in time
(`data.augment.time_shift`) also such as were trained with them; and, for what must not be adopted,
the linear model of configs/sequence/mnist1d_linear.py, which is worse than the student.

The validation split chooses, on three seeds that nothing else uses: the student's learning rate
without a teacher, which stays; then temperature and weight. `jdlopt.compare` decides on up to 20
other seeds. The figure is the difference in test accuracy over fresh seeds, each training with the
weights that are best on the validation split; the test split chose nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from recording import spread, write

import jdlopt
from jdlopt import config as configs
from jdlopt.evidence.options import ComparisonOptions
from jdlopt.evidence.sides import Side, side_of
from jdlopt.evidence.trainer import Trainer, Wanted, key_of
from jdlopt.study.records import interval
from jdlopt.train import serve, weights_file
from jdlopt.train.state import Weights

ROOT = Path(__file__).resolve().parents[1]
TEACHER = ROOT / "configs/sequence/mnist1d_cnn.py"
WORSE = ROOT / "configs/sequence/mnist1d_linear.py"
EPOCHS = 60
STUDENT: dict[str, Any] = {
    "data": {"source": "mnist1d", "batch_size": 100},
    "model": {"name": "mlp", "features": (100, 100)},
    "optim": {"name": "adam", "learning_rate": 1e-3, "schedule": {"name": "cosine"}},
    "train": {"epochs": EPOCHS, "tensorboard": False, "evaluate_test": False},
}
SHIFT = {"data.augment.time_shift": 0.1}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
TEMPERATURES, WEIGHTS = (1.0, 2.0, 4.0, 8.0), (0.5, 0.9, 1.0)
TEACHERS = 3
METRIC = "validation/accuracy"
CHOOSING, TESTING = range(100, 103), 1000
"""The seeds that choose, and the first of those that are tested."""


def train_teachers(
    trainer: Trainer, name: str, file: Path, count: int, change: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Trains so many teachers; returns their directories and what they reach."""
    wanted = {}
    for seed in range(count):
        config = jdlopt.load(str(file), {"train.tensorboard": False, **change, "seed": seed})
        wanted[trainer.workdir / "teachers" / f"{name}-{seed}"] = side_of(config).config
    found = trainer.runs(wanted)
    reached = spread([100 * record["metrics"]["test/accuracy"] for record in found.values()])
    return [str(place.absolute()) for place in wanted], reached


def accuracies(
    trainer: Trainer, sides: Mapping[str, Side], seeds: Sequence[int]
) -> dict[str, float]:
    """Returns the mean validation accuracy of each config, in hundredths."""
    trained = trainer.train([(one.config, seeds) for one in sides.values()])
    return {
        name: 100
        * float(np.mean([t.metrics[METRIC] for t in trained[key_of(one.config)].values()]))
        for name, one in sides.items()
    }


def best(found: Mapping[str, float]) -> str:
    """Returns the name of the largest value."""
    return max(found, key=found.__getitem__)


def tested(trainer: Trainer, side: Side, seeds: Sequence[int]) -> list[float]:
    """Returns the test accuracy of each seed's best weights, in hundredths."""
    asked = [Wanted(side.config, seed, keep=True) for seed in seeds]
    trainer.train_wanted(asked)
    experiment = side.experiment
    learnt = jax.tree.map(np.asarray, experiment.learnt)
    like = Weights({}, {}, jax.device_get(experiment.hparams), learnt)
    found = []
    for one in asked:
        weights = weights_file.load(trainer.weights_of(one.key, one.seed), like)
        found.append(100 * float(serve.measure(experiment, weights, "test")["test/accuracy"]))
    return found


def distilled(
    workdir: Path, trainer: Trainer, student: Side, teachers: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """Chooses temperature and weight for each teacher, compares, and tests.

    Args:
      workdir: of the comparisons.
      trainer: of everything else.
      student: without a teacher.
      teachers: directories by name.
      seeds: tested.

    Returns:
      Both sides' test accuracy and, for each teacher, what was chosen, decided and gained.
    """
    alone = tested(trainer, student, seeds)
    record: dict[str, Any] = {"student": spread(alone), "teachers": {}}
    for name, places in teachers.items():
        sides = {}
        for temperature in TEMPERATURES:
            for weight in WEIGHTS:
                change = {
                    "loss.distill.teacher": tuple(places),
                    "loss.distill.temperature": temperature,
                    "loss.distill.weight": weight,
                }
                sides[f"T={temperature:g}, weight={weight:g}"] = side_of(
                    student.raw, change, student
                )
        tried = accuracies(trainer, sides, CHOOSING)
        taught = sides[best(tried)]
        compared = jdlopt.compare(
            student.raw, taught.raw, workdir / name.replace(" ", "-"), ComparisonOptions()
        )
        values = tested(trainer, taught, seeds)
        gains = [after - before for before, after in zip(alone, values, strict=True)]
        record["teachers"][name] = {
            "chosen": best(tried),
            "validation": tried,
            "decision": compared["decision"],
            "validation_gain": {
                name: compared["effect"][name] for name in ("mean", "interval", "seeds")
            },
            "test": spread(values),
            "test_gain": {**spread(gains), "interval": interval(gains)},
        }
        one = record["teachers"][name]
        print(name, one["chosen"], one["decision"], compared["effect"]["interval"], flush=True)
        print(f"  test {np.mean(alone):.2f} → {np.mean(values):.2f}", interval(gains), flush=True)
    return record


def main() -> None:
    """Measures both ways and records them."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--keep", type=Path)
    flags = words.parse_args()
    seeds = range(TESTING, TESTING + flags.seeds)
    record: dict[str, Any] = {"epochs": EPOCHS, "shift": SHIFT}
    with tempfile.TemporaryDirectory() as name:
        folder = flags.keep or Path(name)
        with Trainer(folder / "trainings") as trainer:
            made = {
                "CNN": train_teachers(trainer, "plain", TEACHER, TEACHERS, {}),
                "CNN trained with shifts": train_teachers(
                    trainer, "shifted", TEACHER, TEACHERS, SHIFT
                ),
                "linear model": train_teachers(trainer, "worse", WORSE, 1, {}),
            }
            record["teachers"] = {name: reached for name, (_, reached) in made.items()}
            plain, shifted, worse = (places for places, _ in made.values())
            teachers = {"one CNN": plain[:1], "three CNNs": plain, "a linear model": worse}
            more = {
                "one CNN trained with shifts": shifted[:1],
                "three CNNs trained with shifts": shifted,
            }
            ways = {
                "without augmentation": ({}, teachers),
                "with shifts": (SHIFT, {**teachers, **more}),
            }
            for way, (change, those) in ways.items():
                sides = {
                    f"{rate:g}": side_of(
                        configs.override(STUDENT, {**change, "optim.learning_rate": rate})
                    )
                    for rate in RATES
                }
                rates = accuracies(trainer, sides, CHOOSING)
                student = sides[best(rates)]
                print(way, rates, flush=True)
                place = folder / way.replace(" ", "-")
                found = distilled(place, trainer, student, those, seeds)
                record[way] = {"rate": best(rates), "rates": rates, **found}
    write("distillation", record)


if __name__ == "__main__":
    main()
