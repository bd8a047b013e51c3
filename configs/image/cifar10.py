"""CIFAR-10, 32×32 colour photographs in ten classes, with a 2-D CNN and augmentation.

Reaches: not measured yet.

CIFAR-10 is a public TFDS dataset: prepare it once (docs/data.md), then train.

    python -m jdlopt.data.prepare cifar10
    jdlopt train --config=configs/image/cifar10.py --workdir=runs/cifar10
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "cifar10",
            "batch_size": 256,
            "preprocess": {"scale": "standard"},
            # 4 pixels off, half of them mirrored, an 8×8 square blanked
            "augment": {"crop": 0.125, "flip": 0.5, "cutout": 0.25},
        }
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (64, 128, 256),
            "kernel_size": 3,
            "pool": "max",
            "batch_norm": True,
            "readout": "average",
            "dropout_rate": 0.1,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine", "warmup_fraction": 0.05},
            "average": {"name": "ema", "decay": 0.999},
        }
    )
    config.train = ConfigDict({"epochs": 50})
    return config


def get_space() -> Space:
    """Does mixing examples help beside blanking a square?"""
    return {
        "data.augment.mixup": choice(None, 0.2, role="scientific"),
        "data.augment.cutout": uniform(0.0, 0.5, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 2e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(5e-3, 0.5, role="nuisance"),
    }
