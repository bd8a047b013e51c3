"""The three Italian wines by thirteen chemical measurements, with a small perceptron.

Reaches 100.0 ± 0.0 % test accuracy (5 seeds) in 8 s, of it 6 s compiling, on 2 cores of an AMD
EPYC.

    jdlopt train --config=configs/tabular/wine_mlp.py --workdir=runs/wine_mlp
    jdlopt tune --config=configs/tabular/wine_mlp.py --workdir=runs/wine_mlp_study
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {"source": "wine", "batch_size": 16, "preprocess": {"scale": "standard"}}
    )
    config.model = ConfigDict({"name": "mlp", "features": (32, 32), "dropout_rate": 0.1})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine"},
        }
    )
    config.train = ConfigDict({"epochs": 40, "monitor": "validation/loss"})
    return config


def get_space() -> Space:
    """How deep and wide need the network be?"""
    return {
        "model.features": choice((16,), (32, 32), (64, 64, 64), role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.5, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 5e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.5, role="nuisance"),
    }
