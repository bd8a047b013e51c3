"""ImageNet, 1.28 million photographs in a thousand classes, streamed from disk, with a 2-D CNN.

Reaches: not measured yet. It is meant for accelerators: on a CPU it is out of reach.

The archives have to be downloaded by hand from image-net.org into DATA/downloads/manual, where
DATA is the data folder; then prepare them once (docs/data.md) and train.

    python -m jdlopt.data.prepare imagenet2012
    jdlopt train --config=configs/image/imagenet2012.py --workdir=runs/imagenet2012

The images are decoded while the network trains. If `data_wait_share` in result.json, which the
progress bar shows as well, is more than a few per cent, add workers: one a core, less one or two.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "imagenet2012",
            "batch_size": 1024,
            "image_size": (224, 224),
            "workers": 8,
            "in_memory": False,
            "preprocess": {"standardize": True},
            "augment": {"resized_crop": 0.75, "flip": 0.5, "rand_augment": 0.3},
        }
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "features": (64, 128, 256, 512, 512, 1024),
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
            "learning_rate": 2e-3,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.05},
        }
    )
    # the published test split has no labels: what is reported is the validation split's
    config.train = ConfigDict({"epochs": 90, "evaluate_test": False})
    return config
