"""MNIST with a vision transformer: 49 patches of 4×4 pixels, 4 layers of width 64.

Reaches: not measured yet.

MNIST is the public TFDS dataset; prepare it once (docs/data.md says how), then

    jdlopt train --config=configs/image/mnist_vit.py --workdir=runs/mnist_vit
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "mnist",
            "batch_size": 128,
            "preprocess": {"scale": "standard"},
            "augment": {"shift": 0.08, "rotate": 12.0, "zoom": 0.12, "shear": 8.0},
        }
    )
    config.model = ConfigDict(
        {
            "name": "vit",
            "patch_size": 4,
            "features": 64,
            "num_layers": 4,
            "num_heads": 4,
            "pooling": "mean",
            "dropout_rate": 0.1,
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.05},
            "average": {"name": "ema", "decay": 0.995},
        }
    )
    config.train = ConfigDict({"epochs": 20})
    return config
