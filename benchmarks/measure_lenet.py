"""LeNet-300-100 on MNIST: what sparsity costs, and what few bits cost.

    python benchmarks/measure_lenet.py --mnist=DIR [--seeds=5] [--epochs=5] [--keep=DIR] [--time]

configs/image/mnist_lenet.py is trained with eight sparsities and every seed, one of them 0, as
populations of one program on each core. Points lost are of test accuracy against sparsity 0, seed
by seed.
Kernels of 8, 4 and 3 bits, inputs of layers of 8: rounded after training, calibrated on training
examples; and trained on from each seed's own weights, all bits and seeds in one population,
against floats that are trained on alike. DIR has the four original gzip files. The test split chose
nothing.
--time measures on a machine that does nothing else, and records nothing else: an epoch of all
sparsities and seeds, compilation and evaluations included, between two times of PyTorch's
torch.nn.utils.prune on made-up images of that size (batch 128, Adam, global magnitude, weights
chosen as often, up to 95 %; one thread). A run on each of two cores, its trainings take half its
time a step times their steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
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
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
BITS, MORE = (8.0, 4.0, 3.0), {"epochs": 2, "rate": 3e-4}
"""Bits of kernels; how long, and at which rate, those of few bits are trained on."""
TORCH_STEPS = 300


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


def torch_seconds(steps: int, every: int) -> float:
    """Returns PyTorch's time a step of the same network, one thread, masks by torch's own prune."""
    import torch
    from torch.nn.utils import prune

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(),
        torch.nn.Linear(100, 10),
    )  # fmt: skip
    chosen = [(net[0], "weight"), (net[2], "weight")]
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    images, labels = torch.rand(4096, 784), torch.randint(0, 10, (4096,))
    share = 1 - 0.05 ** (every / steps)  # of what is left, so that 95 % are pruned in the end
    began = time.perf_counter()
    for step in range(steps):
        if step % every == 0:
            prune.global_unstructured(chosen, prune.L1Unstructured, amount=share)
        rows = torch.randint(0, 4096, (128,))
        loss = torch.nn.functional.cross_entropy(net(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / steps


def timed(base: dict[str, Any], seeds: range, folder: Path) -> dict[str, Any]:
    """Returns the time of an epoch of every sparsity and seed, and PyTorch's for as many steps."""
    with Trainer(folder / "timed", workers=2) as trainer:
        bench = Bench({**base, "train": {**base["train"], "epochs": 1}}, trainer)
        made = [bench.experiment({"model.prune.sparsity": one}) for one in SPARSITIES]
        steps, runs = made[0].total_steps, len(SPARSITIES) * len(seeds)
        each = [torch_seconds(TORCH_STEPS, max(1, steps // 50))]  # chosen 50 times in a training
        began = time.monotonic()
        trainer.train([(one.config, seeds) for one in made])
        seconds = time.monotonic() - began
        each.append(torch_seconds(TORCH_STEPS, max(1, steps // 50)))
    theirs = float(np.mean(each)) * steps * runs / 2
    return {"runs": runs, "steps": steps, "seconds": seconds, "torch_seconds": theirs,
            "torch_step": spread(each), "faster": theirs / seconds}  # fmt: skip


def main() -> None:
    """Measures everything and records it."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--mnist", type=Path, required=True)
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--keep", type=Path)
    words.add_argument("--time", action="store_true")
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
            write("lenet", {**known, "speed": timed(base, seeds, Path(folder))})
            return
        with Trainer(keep / "trainings", workers=2) as trainer:
            bench = Bench(base, trainer)
            sparse, dense, whole = pruned(bench, seeds)
            bits = in_few_bits(bench, seeds, dense, whole)
    record = {"epochs": flags.epochs, "dense": spread(whole), "pruning": sparse, "bits": bits}
    write("lenet", {**record, "speed": known.get("speed")})


if __name__ == "__main__":
    main()
