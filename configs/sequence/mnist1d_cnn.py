"""MNIST-1D with a three-layer CNN, batch norm and dropout.

Reaches 96.0 ± 0.2 % test accuracy (5 seeds) in 64 s, of it 29 s compiling, on 2 cores of an AMD
EPYC.

    jdlopt train --config=configs/sequence/mnist1d_cnn.py --workdir=runs/mnist1d_cnn
    jdlopt tune --config=configs/sequence/mnist1d_cnn.py --workdir=runs/mnist1d_cnn_study
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict({"source": "mnist1d", "batch_size": 100})
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (32, 64, 64),
            "kernel_size": 5,
            "strides": 2,
            "batch_norm": True,
            "dropout_rate": 0.3,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.0463},
        }
    )
    config.train = ConfigDict({"epochs": 60})
    return config


def get_space() -> Space:
    """Does batch norm help?"""
    return {
        "model.batch_norm": choice(True, False, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.6, role="nuisance"),
        "optim.learning_rate": log_uniform(1e-3, 3e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.5, role="nuisance"),
        "loss.label_smoothing": uniform(0.0, 0.3, role="nuisance"),
    }
