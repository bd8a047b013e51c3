"""Optuna's TPE with PyTorch over the whole family of perceptrons: the peer of `measure_improve.py`.

    python benchmarks/improve_peer.py SECONDS SEED

Searches depth, width, activation, batch norm, dropout, rate and decay, label smoothing, batch size,
schedule and length, with its median pruner, until the time is over. Then the best point is trained
with five fresh seeds; one JSON line tells their test accuracies, each at the epoch that was best on
the validation split.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import optuna
import torch
from torch import nn

from jdlopt.train.experiment import Experiment

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}
SEEDS = range(900_000, 900_005)


def splits() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Returns the same three splits as jdlopt's."""
    config = {"data": {"source": "mnist1d"}, "model": {"name": "mlp"}, "train": {"epochs": 1}}
    dataset = Experiment.build(config).data
    found = {}
    for split in ("train", "validation", "test"):
        arrays = dataset.read(split)
        inputs = np.asarray(arrays.inputs, np.float32).reshape(len(arrays.targets), -1)
        found[split] = (
            torch.from_numpy(inputs.copy()),
            torch.from_numpy(np.asarray(arrays.targets).astype(np.int64)),
        )
    return found


def drawn(trial: optuna.Trial) -> dict:
    """Draws a point of the family."""
    return {
        "layers": trial.suggest_int("layers", 1, 4),
        "width": trial.suggest_int("width", 50, 400, log=True),
        "activation": trial.suggest_categorical("activation", list(ACTIVATIONS)),
        "batch_norm": trial.suggest_categorical("batch_norm", [False, True]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "rate": trial.suggest_float("rate", 1e-4, 3e-2, log=True),
        "decay": trial.suggest_float("decay", 1e-4, 1.0, log=True),
        "smoothing": trial.suggest_float("smoothing", 0.0, 0.3),
        "batch": trial.suggest_categorical("batch", [50, 100, 200]),
        "cosine": trial.suggest_categorical("cosine", [False, True]),
        "epochs": trial.suggest_categorical("epochs", [20, 40, 80]),
    }


def train(point: dict, data: dict, seed: int, report=None) -> tuple[float, float]:
    """Trains one point; returns the best validation accuracy and the test accuracy there."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    width = data["train"][0].shape[1]
    for _ in range(point["layers"]):
        layers.append(nn.Linear(width, point["width"]))
        width = point["width"]
        layers += [nn.BatchNorm1d(width)] if point["batch_norm"] else []
        layers += [ACTIVATIONS[point["activation"]](), nn.Dropout(point["dropout"])]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=point["rate"], weight_decay=point["decay"])
    x, y = data["train"]
    steps = point["epochs"] * -(-len(y) // point["batch"])
    schedule = None
    if point["cosine"]:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = nn.CrossEntropyLoss(label_smoothing=point["smoothing"])
    best, test = 0.0, 0.0
    for epoch in range(point["epochs"]):
        model.train()
        for chosen in torch.randperm(len(y)).split(point["batch"]):
            optimizer.zero_grad(set_to_none=True)
            loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        model.eval()
        with torch.inference_mode():
            accuracy = {
                split: (model(data[split][0]).argmax(1) == data[split][1]).float().mean().item()
                for split in (("validation",) if report else ("validation", "test"))
            }
        if accuracy["validation"] > best:
            best, test = accuracy["validation"], accuracy.get("test", 0.0)
        if report is not None:
            report(best, epoch)
    return best, test


def main() -> None:
    """Searches for so long and tests what was best."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    data, deadline = splits(), time.perf_counter() + seconds

    def objective(trial: optuna.Trial) -> float:
        def report(best: float, epoch: int) -> None:
            trial.report(best, epoch)
            if trial.should_prune() or time.perf_counter() > deadline:
                raise optuna.TrialPruned

        return train(drawn(trial), data, trial.number, report)[0]

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(objective, timeout=seconds)
    point = drawn(optuna.trial.FixedTrial(study.best_params))
    tests = [train(point, data, one)[1] for one in SEEDS]
    print(json.dumps({"trials": len(study.trials), "validation": study.best_value,
                      "test": tests, "point": point}))  # fmt: skip


if __name__ == "__main__":
    main()
