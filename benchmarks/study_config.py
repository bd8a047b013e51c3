"""The study timed against its peers: MNIST-1D, 20 epochs of 3,200 examples, batches of 100."""

from __future__ import annotations

from models import EXPERIMENTS

from jdlopt.study.space import log_uniform, uniform

EPOCHS = 20
RANGES = {
    "optim.learning_rate": (1e-4, 3e-2, True),
    "optim.weight_decay": (1e-4, 1e-1, True),
    "model.dropout_rate": (0.0, 0.5, False),
    "loss.label_smoothing": (0.0, 0.2, False),
}
"""Key: low, high, whether it is drawn on a log scale. The peers draw from the same."""


def get_config(name: str = "mnist1d_mlp") -> dict:
    """Returns the config around which is searched."""
    base = EXPERIMENTS[name]
    return {
        **base,
        "model": {**base["model"], "dropout_rate": 0.1},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
        "train": {"epochs": EPOCHS, "evaluate_test": False},
    }


def get_space() -> dict:
    """Returns the space."""
    return {
        key: (log_uniform if log else uniform)(low, high)
        for key, (low, high, log) in RANGES.items()
    }
