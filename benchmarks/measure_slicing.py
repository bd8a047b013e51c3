"""Slices a ResNet to half its width, and measures it as int8 ONNX against torch-pruning's way.

    pip install --target PLACE --no-deps torch-pruning
    PYTHONPATH=PLACE python benchmarks/measure_slicing.py --mnist=DIR [--seeds=5] [--steps=100]

DIR holds MNIST's four idx files, gzipped. Here and in PyTorch the same network (three stages of two
blocks, 32, 64 and 128 wide) is trained for so many steps of 32 of the first 4,000 images, cut to
half its channels, and trained on for as many. Accuracies are on the first 2,000 test images. Times
are of a prediction on one core, in turn: of the whole network as jit compiles it, of the half one
as int8 in ONNX Runtime, of torch-pruning's half one in PyTorch, eager. --keep=DIR keeps the runs
and goes on with them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import torch
import torch_pruning
from recording import alternating, spread, write

from jdlopt.compress.made import save_made
from jdlopt.compress.slicing import sliced
from jdlopt.export.formats import export_run
from jdlopt.export.onnx import session
from jdlopt.study.records import interval
from jdlopt.train.loop import fit
from jdlopt.train.run import Run, open_run

FEATURES, BATCH, TRAIN, RATE, RATE_AFTER = (32, 64, 128), 32, 4000, 5e-3, 2.5e-3
TEST, BLOCKS, STRIDES = 2000, 2, (1, 2, 2)
BATCHES = (1, 32)
REPETITIONS = 15
TARGETS = {"against its own jit": 8.0, "against torch-pruning": 3.0}


class Images(NamedTuple):
    """Training and test images, and their classes."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def read_mnist(folder: Path) -> Images:
    """Returns the first `TRAIN` training images, and the first `TEST` test images."""

    def read(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=offset)

    x = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    y = read("train-labels-idx1-ubyte.gz", 8).astype(np.int64)
    test = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    test_y = read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)
    return Images((x[:TRAIN], y[:TRAIN]), (test[:TEST], test_y[:TEST]))


# --- here -------------------------------------------------------------------------------------


def config_of(source: Path, seed: int, steps: int, rate: float, **model: object) -> dict:
    """Returns the config of a training."""
    return {
        "data": {
            "source": str(source), "validation_fraction": 0.05, "batch_size": BATCH,
            "preprocess": {"scale": "standard"},
        },
        "model": {
            "name": "resnet", "stem": "cifar", "stage_sizes": (BLOCKS,) * 3,
            "features": FEATURES, "strides": STRIDES, **model,
        },
        "optim": {
            "name": "adamw", "learning_rate": rate, "weight_decay": 0.01,
            "schedule": {"name": "cosine"},
        },
        "train": {"steps": steps, "eval_every": steps, "monitor": "validation/loss",
                  "tensorboard": False},
        "seed": seed,
    }  # fmt: skip


def trained(images: Images, seed: int, steps: int, folder: Path) -> tuple[Run, Run, float]:
    """Returns the whole network, the half one, and its test accuracy before it was trained on."""
    source = folder / "images.npz"
    (x_train, y_train), (x_test, y_test) = images
    np.savez(source, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    whole = fit(config_of(source, seed, steps, RATE), folder / "whole")
    half = sliced(whole.config, whole.weights, 0.5)
    made = save_made(whole, half.config, half.weights, folder / "cut", {"method": "slicing"})
    widths = {
        key: half.config.model.options[key]
        for key in ("features", "stem_features", "block_features")
    }
    on = config_of(source, seed, steps, RATE_AFTER, **widths, pretrained=str(folder / "cut"))
    return whole, fit(on, folder / "half"), made.metrics["test/accuracy"]


def jitted(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the predictions of a run as one compiled function."""
    predict = jax.jit(run.experiment.predict)
    weights = run.weights

    def call(x: np.ndarray) -> np.ndarray:
        return np.asarray(predict(weights, x).probabilities)

    return call


def in_8_bits(run: Path) -> tuple[dict, Callable[[np.ndarray], np.ndarray]]:
    """Returns what the export of a run in 8 bits says of itself, and its probabilities."""
    record = export_run([run], "onnx", int8=True)
    found = session(Path(record["file"]).read_bytes(), threads=1)
    name = found.get_inputs()[0].name

    def call(x: np.ndarray) -> np.ndarray:
        return found.run(["probabilities"], {name: x})[0]

    return record["int8"], call


# --- PyTorch ----------------------------------------------------------------------------------


class Block(torch.nn.Module):
    """A residual block, with a convolution of what comes in where the shape changes."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv_0 = torch.nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm_0 = torch.nn.BatchNorm2d(width)
        self.conv_1 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm_1 = torch.nn.BatchNorm2d(width)
        self.shortcut = torch.nn.Identity()
        if stride != 1 or before != width:
            conv = torch.nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(width))
        torch.nn.init.zeros_(self.norm_1.weight)
        for layer in self.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to images."""
        y = torch.relu(self.norm_0(self.conv_0(x)))
        return torch.relu(self.norm_1(self.conv_1(y)) + self.shortcut(x))


class Network(torch.nn.Module):
    """The same network as here."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(1, FEATURES[0], 3, 1, 1, bias=False)
        torch.nn.init.kaiming_normal_(self.stem.weight)
        self.stem_norm = torch.nn.BatchNorm2d(FEATURES[0])
        blocks, before = [], FEATURES[0]
        for width, stride in zip(FEATURES, STRIDES):
            for index in range(BLOCKS):
                blocks.append(Block(before, width, 1 if index else stride))
                before = width
        self.blocks = torch.nn.Sequential(*blocks)
        self.head = torch.nn.Linear(FEATURES[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to logits."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        return self.head(self.blocks(x).mean(dim=(2, 3)))


def tensors(images: np.ndarray, of: np.ndarray) -> torch.Tensor:
    """Returns images as PyTorch has them, scaled by the statistics of training images."""
    scaled = ((images - of.mean()) / of.std()).astype(np.float32)
    return torch.from_numpy(np.moveaxis(scaled, -1, 1).copy())


def torch_trained(model: Network, images: Images, seed: int, steps: int, rate: float) -> None:
    """Trains a network in place, for so many steps at a rate that falls as a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    )
    x, y = tensors(images.train[0], images.train[0]), torch.from_numpy(images.train[1])
    rng, loss, order = np.random.default_rng(seed), torch.nn.CrossEntropyLoss(), np.zeros(0, int)
    model.train()
    for _ in range(steps):
        if len(order) < BATCH:
            order = np.concatenate([order, rng.permutation(len(y))])
        chosen, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad(set_to_none=True)
        loss(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def torch_cut(model: Network) -> None:
    """Cuts half of the channels of every layer, as torch-pruning's README does."""
    torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, 1, 28, 28),
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        round_to=8,
        ignored_layers=[model.head],
    ).step()


def torch_accuracy(model: Network, images: Images) -> float:
    """Returns the accuracy on the test images."""
    with torch.inference_mode():
        x = tensors(images.test[0], images.train[0])
        found = torch.cat([model(part) for part in x.split(500)]).argmax(dim=1)
    return float((found.numpy() == images.test[1]).mean())


def eager(model: Network) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the predictions of a network in PyTorch's eager mode."""
    model.eval()

    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return torch.softmax(model(x), dim=1)

    return call


# --- times ------------------------------------------------------------------------------------


def timed(call: Callable[[], object], seconds: float = 0.1) -> Callable[[], float]:
    """Returns a measurement of one call in ms of CPU time: the mean of those in some time."""
    call()

    def measure() -> float:
        start, count = time.process_time(), 0
        while time.process_time() - start < seconds:
            call()
            count += 1
        return 1000 * (time.process_time() - start) / count

    return measure


def times(whole: Run, int8: Callable[[np.ndarray], np.ndarray], images: Images) -> dict:
    """Returns the ms of a prediction and their ratios, by the size of a batch."""
    found = {}
    model = Network()
    torch_cut(model)
    compiled, peer = jitted(whole), eager(model)
    for size in BATCHES:
        x = images.test[0][:size]
        scaled = tensors(x, images.train[0])
        runs: dict[str, Callable[[], object]] = {
            "jit, whole": lambda x=x: compiled(x),
            "int8 ONNX, half": lambda x=x: int8(x),
            "torch-pruning, half": lambda x=scaled: peer(x),
        }
        ms = alternating({name: timed(run) for name, run in runs.items()}, REPETITIONS)
        ours = ms["int8 ONNX, half"]
        ratios = {
            "against its own jit": [a / b for a, b in zip(ms["jit, whole"], ours)],
            "against torch-pruning": [a / b for a, b in zip(ms["torch-pruning, half"], ours)],
        }
        found[f"batch {size}"] = {
            "ms": {name: spread(values) for name, values in ms.items()},
            "ratios": {name: spread(values) for name, values in ratios.items()},
        }
        shown = {name: round(spread(values)["median"], 2) for name, values in ratios.items()}
        print(f"batch {size}: {shown}", {name: round(min(one), 3) for name, one in ms.items()})
    return found


# --- all of it --------------------------------------------------------------------------------


def accuracies(images: Images, seed: int, steps: int, folder: Path) -> dict[str, float]:
    """Returns the test accuracies of a seed, by what is measured; those that are known, at once."""
    known = folder / "accuracies.json"
    if known.exists():
        return json.loads(known.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = Network()
    torch_trained(model, images, seed, steps, RATE)
    found = {"torch, whole": torch_accuracy(model, images)}
    torch_cut(model)
    found["torch, cut"] = torch_accuracy(model, images)
    torch_trained(model, images, seed, steps, RATE_AFTER)
    found["torch, half"] = torch_accuracy(model, images)
    whole, half, cut = trained(images, seed, steps, folder)
    found["jdlopt, whole"] = whole.metrics["test/accuracy"]
    found["jdlopt, cut"] = cut
    found["jdlopt, half"] = half.metrics["test/accuracy"]
    known.write_text(json.dumps(found))
    return found


def main() -> None:
    """Trains, cuts, trains on, and measures times."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--mnist", type=Path, required=True)
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--steps", type=int, default=100)
    flags.add_argument("--keep", type=Path)
    flags.add_argument("--no-times", dest="times", action="store_false")
    given = flags.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before jax has started its threads
    torch.set_num_threads(1)
    images = read_mnist(given.mnist)
    with tempfile.TemporaryDirectory() as temporary:
        keep, rows = given.keep or Path(temporary), []
        for seed in range(given.seeds):
            rows.append(accuracies(images, seed, given.steps, keep / f"seed_{seed}"))
            print(f"seed {seed}: {rows[-1]}", flush=True)
        if not given.times:
            return
        ways = []
        for seed, row in enumerate(rows):
            way, int8 = in_8_bits(keep / f"seed_{seed}" / "half")
            right = int8(images.test[0]).argmax(axis=1) == images.test[1]
            row["jdlopt, half, int8"] = float(right.mean())
            ways.append(way["kept"])
        found = times(open_run(keep / "seed_0" / "whole"), int8, images)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    ahead = [
        ours - theirs for ours, theirs in zip(columns["jdlopt, half, int8"], columns["torch, half"])
    ]
    for name, values in columns.items():
        print(f"{name}: {np.mean(values):.4f}")
    print(f"accuracy ahead of torch-pruning: {np.mean(ahead):.4f}, {interval(ahead)}")
    write(
        "slicing",
        {
            "torch": torch.__version__,
            "torch_pruning": torch_pruning.__version__,
            "steps": given.steps,
            "times": found,
            "accuracy": {name: spread(values) for name, values in columns.items()},
            "ahead_of_torch_pruning": {"interval": interval(ahead), **spread(ahead)},
            "int8": ways,
            "targets": TARGETS,
        },
    )


if __name__ == "__main__":
    main()
