"""MNIST with a 2-D CNN of 32 and 64 channels.

Reaches: not measured yet.

MNIST is the public TFDS dataset; prepare it once (docs/data.md says how), then

    jdlopt train --config=configs/image/mnist_cnn.py --workdir=runs/mnist_cnn
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {"source": "mnist", "batch_size": 128, "preprocess": {"scale": "standard"}}
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (32, 64),
            "kernel_size": 3,
            "pool": "max",
            "batch_norm": True,
            "dropout_rate": 0.3,
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.02,
            "schedule": {"name": "cosine", "warmup_steps": 200},
        }
    )
    config.train = ConfigDict({"epochs": 6})
    return config
