"""LeNet-300-100 trained and pruned by PyTorch: the peer of `measure_lenet.py --time`.

    python benchmarks/lenet_peer.py NPZ EPOCHS THREADS SPARSITY …

Trains once for each sparsity, as the config does it: batches of 128 in a new order each epoch, Adam
with a cosine schedule, the smallest weights of both hidden kernels together by
`torch.nn.utils.prune.global_unstructured`, a hundred times a training until half of it, sparsity
rising as a cubic; an evaluation after each epoch. One JSON line tells the seconds of each training,
imports, reading and scaling left out, and its accuracy.
"""

from __future__ import annotations

import json
import os
import sys
import time

# before torch counts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = sys.argv[3]

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

BATCH, RATE = 128, 1e-3
VALIDATION = 0.1


def splits(path: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns the images of both splits, scaled and flat, and their classes."""
    with np.load(path) as file:
        images, labels = file["x_train"], file["y_train"]
    images = images.reshape(len(images), -1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    cut = round(len(images) * (1 - VALIDATION))
    mean, std = images[order[:cut]].mean(), images[order[:cut]].std()
    scaled = (images - mean) / std
    return [
        (torch.from_numpy(scaled[rows]), torch.from_numpy(labels[rows].astype(np.int64)))
        for rows in (order[:cut], order[cut:])
    ]


def sparsity_at(step: int, end: int, sparsity: float) -> float:
    """Returns the share of weights that is pruned after a step."""
    return sparsity * (1 - (1 - min(1.0, step / end)) ** 3)


def train(
    data: list[tuple[torch.Tensor, torch.Tensor]], sparsity: float, seed: int, epochs: int
) -> float:
    """Trains a network; returns its last accuracy on the validation split."""
    torch.manual_seed(seed)
    (images, labels), (inputs, targets) = data
    net = nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    chosen = [(net[0], "weight"), (net[2], "weight")]
    loss_of = nn.CrossEntropyLoss()
    an_epoch = -(-len(images) // BATCH)
    total = epochs * an_epoch
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    every, end, step, pruned, accuracy = max(1, total // 100), total // 2, 0, 0.0, 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            wanted = sparsity_at(step, end, sparsity)
            if sparsity and step % every == 0 and wanted > pruned:
                # a share of what is left
                amount = 1 - (1 - wanted) / (1 - pruned)
                prune.global_unstructured(chosen, prune.L1Unstructured, amount=amount)
                pruned = wanted
            loss = loss_of(net(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
        with torch.no_grad():
            accuracy = float((net(inputs).argmax(1) == targets).float().mean())
    return accuracy


def main() -> None:
    """Trains and tells."""
    torch.set_num_threads(int(sys.argv[3]))
    data, epochs = splits(sys.argv[1]), int(sys.argv[2])
    train([(one[:1024], other[:1024]) for one, other in data], 0.5, 0, 1)  # the first is slower
    seconds, accuracies = [], []
    for seed, sparsity in enumerate(map(float, sys.argv[4:])):
        began = time.perf_counter()
        accuracies.append(train(data, sparsity, seed, epochs))
        seconds.append(time.perf_counter() - began)
    version = torch.__version__.partition("+")[0]
    print(json.dumps({"seconds": seconds, "accuracy": accuracies, "torch": version}))


if __name__ == "__main__":
    main()
