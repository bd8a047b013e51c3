"""Fashion-MNIST, 28×28 grey pictures of clothes in ten classes, with a 2-D CNN.

Reaches: not measured yet.

Fashion-MNIST is a public TFDS dataset: prepare it once (docs/data.md), then train.

    python -m jdlopt.data.prepare fashion_mnist
    jdlopt train --config=configs/image/fashion_mnist.py --workdir=runs/fashion_mnist
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "fashion_mnist",
            "batch_size": 128,
            "preprocess": {"scale": "standard"},
            # clothes hang either way round, and not always in the middle: 2 pixels off
            "augment": {"crop": 0.08, "flip": 0.5},
        }
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (32, 64, 128),
            "kernel_size": 3,
            "pool": "max",
            "batch_norm": True,
            "dropout_rate": 0.3,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.05})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine", "warmup_fraction": 0.05},
        }
    )
    config.train = ConfigDict({"epochs": 20})
    return config


def get_space() -> Space:
    """How much augmentation does the network want?"""
    return {
        "data.augment.crop": choice(None, 0.08, 0.15, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.5, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 1e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(5e-3, 0.5, role="nuisance"),
    }
