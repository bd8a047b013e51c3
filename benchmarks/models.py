"""The models that are timed against a peer, as jdlopt configs and as PyTorch modules."""

from __future__ import annotations

from typing import Any

OPTIM = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01}

EXPERIMENTS: dict[str, dict[str, Any]] = {
    # 40-100-100-10
    "mnist1d_mlp": {
        "data": {"source": "mnist1d", "batch_size": 100, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (100, 100), "dropout_rate": 0.1},
        "optim": OPTIM,
    },
    # three convolutions of 25 channels, 5 taps, stride 2
    "mnist1d_cnn": {
        "data": {"source": "mnist1d", "batch_size": 100, "validation_fraction": 0.2},
        "model": {
            "name": "cnn",
            "features": (25, 25, 25),
            "kernel_size": 5,
            "strides": 2,
            "dropout_rate": None,
        },
        "optim": OPTIM,
    },
    # 3×3 convolutions of 32 and 64 channels, each followed by 2×2 max pooling
    "image_cnn": {
        "data": {"batch_size": 128},
        "model": {
            "name": "cnn",
            "features": (32, 64),
            "kernel_size": 3,
            "pool": "max",
            "dropout_rate": None,
        },
        "optim": OPTIM,
    },
}


def torch_model(name: str, dropout_rate: float | None = None) -> Any:
    """Returns the same model as a PyTorch module; a rate puts dropout after every hidden layer.

    Without one it is as in `EXPERIMENTS`: 0.1 in the perceptron, none in the convolutional ones.
    """
    from torch import nn

    rate = 0.1 if dropout_rate is None else dropout_rate
    dropped = [] if dropout_rate is None else [nn.Dropout(dropout_rate)]
    if name == "mnist1d_mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(40, 100), nn.ReLU(), nn.Dropout(rate),
            nn.Linear(100, 100), nn.ReLU(), nn.Dropout(rate),
            nn.Linear(100, 10),
        )  # fmt: skip
    if name == "mnist1d_cnn":
        return nn.Sequential(
            nn.Conv1d(1, 25, 5, stride=2, padding=2), nn.ReLU(), *dropped,
            nn.Conv1d(25, 25, 5, stride=2, padding=2), nn.ReLU(), *dropped,
            nn.Conv1d(25, 25, 5, stride=2, padding=2), nn.ReLU(), *dropped,
            nn.Flatten(), nn.Linear(5 * 25, 10),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 64, 10),
    )  # fmt: skip
