"""MNIST with a small residual network, gently turned, moved, zoomed and sheared images.

Reaches 99.61 ± 0.05 % test accuracy (5 seeds) with its last weights (`jdlopt eval
--checkpoint=newest`), 99.58 % with those that are best on the validation split, in 20 minutes on
one core of an AMD EPYC.

MNIST is the public TFDS dataset; prepare it once (docs/data.md says how), then

    jdlopt train --config=configs/image/mnist_resnet.py --workdir=runs/mnist_resnet
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "mnist",
            "validation_fraction": 0.04,
            "batch_size": 128,
            "preprocess": {"scale": "standard"},
            "augment": {"shift": 0.08, "rotate": 12.0, "zoom": 0.12, "shear": 8.0},
        }
    )
    config.model = ConfigDict(
        {
            "name": "resnet",
            "stem": "cifar",
            "stage_sizes": (1, 1, 1),
            "features": (24, 48, 96),
            "strides": (2, 2, 2),
            "dropout_rate": 0.2,
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine", "warmup_fraction": 0.0247},
            "average": {"name": "ema", "decay": 0.995},
        }
    )
    config.train = ConfigDict({"epochs": 18, "monitor": "validation/loss"})
    return config
