"""MNIST-1D with a bidirectional GRU.

Reaches 97.4 ± 0.3 % test accuracy (5 seeds) in 46 s, of it 21 s compiling, on 2 cores of an AMD
EPYC.

    jdlopt train --config=configs/sequence/mnist1d_gru.py --workdir=runs/mnist1d_gru
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict({"source": "mnist1d", "batch_size": 50})
    config.model = ConfigDict(
        {"name": "gru", "features": 48, "bidirectional": True, "dropout_rate": 0.3}
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-2,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.0694},
        }
    )
    config.train = ConfigDict({"epochs": 20})
    return config
