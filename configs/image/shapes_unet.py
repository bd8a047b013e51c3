"""Circles, squares and triangles that overlap, found pixel by pixel by a small U-Net.

Reaches 92.6 % test mean IoU and 98.3 % of the pixels (1 seed, 1,800 steps), in 203 s on 2 cores of
an AMD EPYC that had other work to do.

    jdlopt train --config=configs/image/shapes_unet.py --workdir=runs/shapes_unet
    jdlopt predict runs/shapes_unet --input=FOLDER --output=FOLDER_OF_MASKS
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "shapes",
            "batch_size": 16,
            "preprocess": {"scale": "standard"},
            "augment": {"flip": 0.5, "flip_vertical": 0.5, "brightness": 0.1},
        }
    )
    config.model = ConfigDict({"name": "unet", "features": 8, "depth": 3})
    config.loss = ConfigDict({"name": "cross_entropy_dice"})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "schedule": {"name": "cosine", "warmup_fraction": 0.05},
        }
    )
    config.train = ConfigDict({"epochs": 20, "monitor": "validation/mean_iou"})
    return config


def get_space() -> Space:
    """How wide and how deep need the network be?"""
    return {
        "model.features": choice(4, 8, 16, role="scientific"),
        "model.depth": choice(2, 3, role="scientific"),
        "optim.learning_rate": log_uniform(5e-4, 2e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.3, role="nuisance"),
    }
