"""Disease progression after a year, a regression on ten measurements, with a small perceptron.

Reaches: not measured yet.

    jdlopt train --config=configs/tabular/diabetes_mlp.py --workdir=runs/diabetes_mlp
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "diabetes",
            "batch_size": 16,
            "validation_fraction": 0.2,
            "preprocess": {"scale": "standard"},
        }
    )
    config.model = ConfigDict({"name": "mlp", "features": (32, 32), "dropout_rate": 0.1})
    config.loss = ConfigDict({"name": "huber", "delta": 50.0})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-2,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_steps": 50},
        }
    )
    config.train = ConfigDict({"epochs": 60, "monitor": "validation/loss"})
    return config
