"""MNIST with LeNet-300-100, 95 % of its weights pruned while it is trained.

MNIST is the public TFDS dataset; prepare it once (docs/data.md says how), then

    jdlopt train --config=configs/image/mnist_lenet.py --workdir=runs/mnist_lenet
    jdlopt train --config=configs/image/mnist_lenet.py:dense --workdir=runs/mnist_lenet_dense
    jdlopt tune --config=configs/image/mnist_lenet.py --workdir=runs/mnist_lenet_study

The second one prunes nothing; the third one asks what sparsity costs.
"""

from ml_collections import ConfigDict

from jdlopt.errors import ConfigError
from jdlopt.study.space import Space, choice


def get_config(variant: str = "pruned") -> ConfigDict:
    if variant not in ("pruned", "dense"):
        raise ConfigError(f"the variant {variant!r} is unknown; there are 'pruned' and 'dense'.")
    config = ConfigDict()
    config.data = ConfigDict(
        {"source": "mnist", "batch_size": 128, "preprocess": {"scale": "standard"}}
    )
    config.model = ConfigDict({"name": "mlp", "features": (300, 100)})
    if variant == "pruned":
        config.model.prune = ConfigDict({"criterion": "magnitude", "sparsity": 0.95})
    config.optim = ConfigDict(
        {"name": "adam", "learning_rate": 1e-3, "schedule": {"name": "cosine"}}
    )
    config.train = ConfigDict({"epochs": 12})
    return config


def get_space() -> Space:
    """What does sparsity cost?"""
    sparsities = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
    return {"model.prune.sparsity": choice(*sparsities, role="scientific")}
