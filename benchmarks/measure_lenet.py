"""LeNet-300-100 on MNIST: what sparsity costs, and what few bits cost.

    python benchmarks/measure_lenet.py --mnist=DIR [--seeds=5] [--epochs=5] [--keep=DIR]
    python benchmarks/measure_lenet.py --mnist=DIR --time [--epochs=12] [--repetitions=3]

configs/image/mnist_lenet.py is trained with eight sparsities and every seed, one of them 0, as
populations of one program on each core. Points lost are of test accuracy against sparsity 0, seed
by seed.
Kernels of 8, 4 and 3 bits, inputs of layers of 8: rounded after training, calibrated on training
examples; and trained on from each seed's own weights, all bits and seeds in one population,
against floats that are trained on alike. DIR has the four original gzip files. The test split chose
nothing.
--time measures on a machine that does nothing else, and records nothing else: all sparsities and
seeds for some epochs, as one population of one compiled program, imports, compilation and
evaluations included; in turn with PyTorch's torch.nn.utils.prune, of which some trainings are timed
(lenet_peer.py; a process on each core, and one process), without imports. Repetitions of as many
epochs that were recorded before count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from lenet_speed import SPARSITIES, timed
from mnist_files import prepared
from recording import RESULTS, spread, write

import jdlopt
from jdlopt import config as configs
from jdlopt.compress.quantize import calibrate, training_batches
from jdlopt.evidence.trainer import Trainer, Wanted
from jdlopt.models.quantization import QuantizeFields
from jdlopt.study.records import interval
from jdlopt.train import serve, weights_file
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

CONFIG = "configs/image/mnist_lenet.py"
ROOT = Path(__file__).parent.parent
RECORD = RESULTS / "lenet.json"
BITS, MORE = (8.0, 4.0, 3.0), {"epochs": 2, "rate": 3e-4}
"""Bits of kernels; how long, and at which rate, those of few bits are trained on."""


class Bench:
    """What all trainings share: the data, the workers, and where weights are kept."""

    def __init__(self, base: dict[str, Any], trainer: Trainer):
        self.trainer = trainer
        self.first = Experiment.build(base)
        self._known: dict[str, Experiment] = {}

    def experiment(self, changes: dict[str, Any]) -> Experiment:
        """Returns the experiment of the config with some keys changed, on the same data."""
        raw = configs.to_dict(configs.override(self.first.config, changes))
        key = repr(sorted(changes.items()))
        if key not in self._known:
            self._known[key] = Experiment.build(
                raw, self.first.data, learnt_before=self.first.learnt, check=False
            )
        return self._known[key]

    def weights(self, experiment: Experiment, file: Path) -> Weights:
        """Returns kept weights, as an experiment predicts with them."""
        learnt = jax.tree.map(np.asarray, experiment.learnt)
        like = Weights({}, {}, jax.device_get(experiment.hparams), learnt)
        return weights_file.load(file, like)


def accuracy(experiment: Experiment, weights: Weights) -> float:
    """Returns the accuracy on the test split, in hundredths."""
    return 100 * float(serve.measure(experiment, weights, "test")["test/accuracy"])


def lost(values: list[float], dense: list[float]) -> dict[str, Any]:
    """Returns the points that each seed loses, with Student's 95 % interval of the mean."""
    each = [before - now for before, now in zip(dense, values, strict=True)]
    return {**spread(each), "interval": interval(each), "accuracy": spread(values)}


def pruned(bench: Bench, seeds: range) -> tuple[dict[str, Any], dict[int, Path], list[float]]:
    """Trains every sparsity with every seed; returns what it costs, and the dense weights."""
    made = {one: bench.experiment({"model.prune.sparsity": one}) for one in SPARSITIES}
    asked = {
        (one, seed): Wanted(made[one].config, seed, keep=True)
        for one in SPARSITIES
        for seed in seeds
    }
    trained = bench.trainer.train_wanted(asked.values())
    assert all(seed in trained[one.key] for (_, seed), one in asked.items())
    files = {place: bench.trainer.weights_of(one.key, one.seed) for place, one in asked.items()}
    found = {
        one: [accuracy(made[one], bench.weights(made[one], files[one, seed])) for seed in seeds]
        for one in SPARSITIES
    }
    print({one: round(float(np.mean(values)), 2) for one, values in found.items()}, flush=True)
    record = {
        "steps": made[0.0].total_steps,
        "lost": {str(one): lost(values, found[0.0]) for one, values in found.items() if one},
    }
    return record, {seed: files[0.0, seed] for seed in seeds}, found[0.0]


def in_few_bits(
    bench: Bench, seeds: range, dense: dict[int, Path], whole: list[float]
) -> dict[str, Any]:
    """Rounds the dense weights, and trains them on with rounded ones; returns what it costs."""
    plain = bench.experiment({"model.prune.criterion": None, "model.prune.sparsity": None})
    starts = {}
    for seed, file in dense.items():
        kept = bench.weights(plain, file)
        state = {name: one for name, one in kept.model_state.items() if name != "pruning"}
        starts[seed] = kept.replace(model_state=state)
        weights_file.save(bench.trainer.workdir / "dense" / f"{seed}.safetensors", starts[seed])
    after: dict[str, list[float]] = {}
    for bits in BITS:
        fields = QuantizeFields(weights=bits, activations=8.0, calibration="mse")
        batches = partial(training_batches, plain, 512)
        values = []
        for seed in seeds:
            made = calibrate(plain, starts[seed], fields, batches)
            changes = {f"model.quantize.{key}": value for key, value in
                       configs.to_dict(fields).items()}  # fmt: skip
            rounded = bench.experiment(
                {"model.prune.criterion": None, "model.prune.sparsity": None, **changes}
            )
            values.append(accuracy(rounded, made.weights))
        after[str(bits)] = values
    asked = {}
    for bits in (None, *BITS[1:]):
        changes = {
            "model.prune.criterion": None, "model.prune.sparsity": None,
            "model.quantize.weights": bits, "model.quantize.activations": bits and 8.0,
            "train.epochs": MORE["epochs"], "optim.learning_rate": MORE["rate"],
        }  # fmt: skip
        for seed in seeds:
            start = bench.trainer.workdir / "dense" / f"{seed}.safetensors"
            config = bench.experiment(changes).config
            asked[bits, seed] = (
                bench.experiment(changes),
                Wanted(config, seed, start, f"dense {seed}", keep=True),
            )
    bench.trainer.train_wanted(one for _, one in asked.values())
    trained = {
        str(bits): [
            accuracy(made, bench.weights(made, bench.trainer.weights_of(one.key, one.seed)))
            for (of, _), (made, one) in asked.items()
            if of == bits
        ]
        for bits in (None, *BITS[1:])
    }
    longer = trained.pop("None")
    print("after training", {k: np.mean(v) for k, v in after.items()}, flush=True)
    print("while training", {k: np.mean(v) for k, v in trained.items()}, flush=True)
    return {
        "after_training": {bits: lost(values, whole) for bits, values in after.items()},
        "floats_trained_on": spread(longer),
        "while_training": {bits: lost(values, longer) for bits, values in trained.items()},
    }


def main() -> None:
    """Measures everything and records it."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--mnist", type=Path, required=True)
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--keep", type=Path)
    words.add_argument("--time", action="store_true")
    words.add_argument("--repetitions", type=int, default=3)
    flags = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keep = flags.keep or Path(folder) / "keep"
        keep.mkdir(parents=True, exist_ok=True)
        source = prepared(flags.mnist, keep)
        changes = {"data.source": str(source), "train.epochs": flags.epochs,
                   "train.evaluate_test": False, "train.tensorboard": False}  # fmt: skip
        base = configs.to_dict(jdlopt.load(str(ROOT / CONFIG), changes))
        seeds = range(flags.seeds)
        known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        if flags.time:
            before, runs = known.get("speed") or {}, len(SPARSITIES) * flags.seeds
            same = before.get("epochs") == flags.epochs and before.get("runs") == runs
            again = before["repetitions"] if same else []
            speed = timed(source, flags.epochs, flags.seeds, flags.repetitions, again)
            write("lenet", {"speed": speed}, keep=True)
            return
        with Trainer(keep / "trainings", workers=2) as trainer:
            bench = Bench(base, trainer)
            sparse, dense, whole = pruned(bench, seeds)
            bits = in_few_bits(bench, seeds, dense, whole)
    record = {"epochs": flags.epochs, "dense": spread(whole), "pruning": sparse, "bits": bits}
    write("lenet", {**record, "speed": known.get("speed")})


if __name__ == "__main__":
    main()
