"""A small learnable dataset, and configs over it."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """An NPZ of three classes of points, 240 for training and validation, 60 for the test."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6)) * 1.5
    labels = np.arange(300) % 3
    points = (centres[labels] + rng.normal(size=(300, 6))).astype(np.float32)
    path = tmp_path_factory.mktemp("blobs") / "blobs.npz"
    np.savez(
        path, x_train=points[:240], y_train=labels[:240], x_test=points[240:], y_test=labels[240:]
    )
    return path


@pytest.fixture
def config(blobs):
    """A config that trains in a second: 24 steps, evaluated every 6."""
    return {
        "seed": 1,
        "data": {"source": str(blobs), "batch_size": 32, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (16, 16), "dropout_rate": 0.2},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.05},
        "optim": {
            "name": "adamw",
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_steps": 3},
        },
        "train": {"steps": 24, "eval_every": 6, "steps_per_dispatch": 4, "tensorboard": False},
        "mesh": {"data": 1},
    }
