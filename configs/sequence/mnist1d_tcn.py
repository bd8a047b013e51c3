"""MNIST-1D with a temporal convolutional network: four residual blocks that see the whole sequence.

Reaches: not measured yet.

    jdlopt train --config=configs/sequence/mnist1d_tcn.py --workdir=runs/mnist1d_tcn
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict({"source": "mnist1d", "batch_size": 100})
    config.model = ConfigDict(
        {
            "name": "tcn",
            "features": (32, 32, 32, 32),
            "kernel_size": 3,
            "dropout_rate": 0.1,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 30})
    return config


def get_space() -> Space:
    """Does the last position say as much as the mean over all?"""
    return {
        "model.readout": choice("last", "mean", role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.4, role="nuisance"),
        "optim.learning_rate": log_uniform(1e-3, 2e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.5, role="nuisance"),
    }
