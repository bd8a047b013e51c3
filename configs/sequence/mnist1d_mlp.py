"""MNIST-1D with a wide two-layer perceptron, kept from memorising by dropout, decay and smoothing.

Reaches 75.5 ± 0.8 % test accuracy (5 seeds) in 64 s, of it 25 s compiling, on 2 cores of an AMD
EPYC.

    jdlopt train --config=configs/sequence/mnist1d_mlp.py --workdir=runs/mnist1d_mlp
    jdlopt tune --config=configs/sequence/mnist1d_mlp.py --workdir=runs/mnist1d_mlp_study
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict({"source": "mnist1d", "batch_size": 100})
    config.model = ConfigDict(
        {"name": "mlp", "features": (256, 256), "activation": "gelu", "dropout_rate": 0.4}
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.0278},
        }
    )
    config.train = ConfigDict({"epochs": 100, "monitor": "validation/loss"})
    return config


def get_space() -> Space:
    """Which activation is best?"""
    return {
        "model.activation": choice("relu", "gelu", "tanh", role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.7, role="nuisance"),
        "optim.learning_rate": log_uniform(3e-4, 3e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 1.0, role="nuisance"),
        "loss.label_smoothing": uniform(0.0, 0.3, role="nuisance"),
    }
