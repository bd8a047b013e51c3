"""MNIST-1D with a three-layer CNN, batch norm and dropout.

Reaches 96.0 ± 0.2 % test accuracy (5 seeds) in 64 s, of it 29 s compiling, on 2 cores of an AMD
EPYC.

    jdlopt train --config=configs/sequence/mnist1d_cnn.py --workdir=runs/mnist1d_cnn
"""

from ml_collections import ConfigDict


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
            "schedule": {"name": "cosine", "warmup_steps": 100},
        }
    )
    config.train = ConfigDict({"epochs": 60})
    return config
