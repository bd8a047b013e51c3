"""The same study by other tools, one process each: what `measure_study.py` starts and times.

    python benchmarks/study_peers.py optuna MODEL TRIALS SEED THREADS [SECONDS]
    python benchmarks/study_peers.py keras MODEL TRIALS SEED

Prints one JSON line: trials, the best validation accuracy, and the seconds after the imports. With
SECONDS, Optuna searches by TPE with its median pruner until they are over; else by random points.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

import numpy as np
from models import torch_model
from study_config import EPOCHS, RANGES, get_config

NAMES = {key.rpartition(".")[2]: bounds for key, bounds in RANGES.items()}


def arrays(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the training and validation split, the same ones as jdlopt's."""
    from jdlopt.train.experiment import Experiment

    dataset = Experiment.build(get_config(name)).data
    train, held = dataset.read("train"), dataset.read("validation")
    return train.inputs, train.targets, held.inputs, held.targets


def optuna_torch(name: str, trials: int, seed: int, threads: int, seconds: float | None) -> dict:
    """Searches with Optuna and PyTorch eager."""
    import optuna
    import torch

    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    inputs, targets, held_inputs, held_targets = arrays(name)
    x = torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())
    y = torch.from_numpy(targets.astype(np.int64))
    held_x = torch.from_numpy(np.moveaxis(held_inputs, -1, 1).copy())
    held_y = torch.from_numpy(held_targets.astype(np.int64))
    deadline = None if seconds is None else time.perf_counter() + seconds

    def objective(trial: optuna.Trial) -> float:
        drawn = {
            key: trial.suggest_float(key, low, high, log=log)
            for key, (low, high, log) in NAMES.items()
        }
        torch.manual_seed(trial.number)
        model = torch_model(name, drawn["dropout_rate"])
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=drawn["learning_rate"], weight_decay=drawn["weight_decay"]
        )
        loss = torch.nn.CrossEntropyLoss(label_smoothing=drawn["label_smoothing"])
        best = 0.0
        for epoch in range(EPOCHS):
            model.train()
            for chosen in torch.randperm(len(y)).split(100):
                optimizer.zero_grad(set_to_none=True)
                loss(model(x[chosen]), y[chosen]).backward()
                optimizer.step()
            model.eval()
            with torch.inference_mode():
                accuracy = (model(held_x).argmax(1) == held_y).float().mean().item()
            best = max(best, accuracy)
            if seconds is not None:
                trial.report(best, epoch)
                if trial.should_prune() or time.perf_counter() > deadline:
                    raise optuna.TrialPruned
        return best

    sampler = optuna.samplers.RandomSampler(seed=seed)
    if seconds is not None:
        sampler = optuna.samplers.TPESampler(seed=seed)
    pruner = optuna.pruners.MedianPruner() if seconds is not None else optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=trials if seconds is None else None, timeout=seconds)
    reached = [
        max(trial.intermediate_values.values(), default=trial.value or 0.0)
        for trial in study.trials
    ]
    return {"trials": len(study.trials), "best": max(reached)}


def keras_tuner(name: str, trials: int, seed: int) -> dict:
    """Searches with KerasTuner and Keras on its JAX backend."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    import keras_tuner

    keras.utils.disable_interactive_logging()
    inputs, targets, held_inputs, held_targets = arrays(name)
    labels, held_labels = (keras.utils.to_categorical(t, 10) for t in (targets, held_targets))

    def build(hp):
        drawn = {
            key: hp.Float(key, low, high, sampling="log" if log else "linear")
            for key, (low, high, log) in NAMES.items()
        }
        hidden = []
        for _ in range(2 if name == "mnist1d_mlp" else 3):
            layer = keras.layers.Dense(100, activation="relu")
            if name != "mnist1d_mlp":
                layer = keras.layers.Conv1D(25, 5, 2, padding="same", activation="relu")
            hidden += [layer, keras.layers.Dropout(drawn["dropout_rate"])]
        flat = [keras.layers.Flatten()]
        order = [*flat, *hidden] if name == "mnist1d_mlp" else [*hidden, *flat]
        model = keras.Sequential([keras.Input(inputs.shape[1:]), *order, keras.layers.Dense(10)])
        model.compile(
            optimizer=keras.optimizers.AdamW(
                drawn["learning_rate"], weight_decay=drawn["weight_decay"]
            ),
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=drawn["label_smoothing"]
            ),
            metrics=["accuracy"],
        )
        return model

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            build, "val_accuracy", max_trials=trials, seed=seed, directory=folder
        )
        tuner.search(
            inputs, labels, epochs=EPOCHS, batch_size=100,
            validation_data=(held_inputs, held_labels), verbose=0,
        )  # fmt: skip
        best = tuner.oracle.get_best_trials(1)[0].score
    return {"trials": trials, "best": float(best)}


def main() -> None:
    """Runs one peer in this process."""
    tool, name, trials, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    start = time.perf_counter()
    if tool == "optuna":
        seconds = float(sys.argv[6]) if len(sys.argv) > 6 else None
        found = optuna_torch(name, trials, seed, int(sys.argv[5]), seconds)
    else:
        found = keras_tuner(name, trials, seed)
    print(json.dumps({**found, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
