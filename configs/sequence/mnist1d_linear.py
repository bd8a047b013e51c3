"""MNIST-1D with logistic regression: the baseline that everything else has to beat.

Reaches 32.7 ± 0.8 % test accuracy (5 seeds) in 6 s, of it 4 s compiling, on 2 cores of an AMD EPYC.

    jdlopt train --config=configs/sequence/mnist1d_linear.py --workdir=runs/mnist1d_linear
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict({"source": "mnist1d"})
    config.model = ConfigDict({"name": "linear"})
    config.optim = ConfigDict(
        {"name": "adamw", "learning_rate": 1e-2, "schedule": {"name": "cosine"}}
    )
    config.train = ConfigDict({"epochs": 30, "monitor": "validation/loss"})
    return config
