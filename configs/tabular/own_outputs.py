"""A template for a table with several numbers to predict at once: multi-output regression.

Copy it, and name the columns to predict; all others are features. Numbers of different size are
best brought to one scale first, since the loss adds their errors up. A final evaluation reports
RMSE, MAE and R² of each number and their means.

    jdlopt data describe --config=configs/tabular/own_outputs.py:bodies.csv
    jdlopt train --config=configs/tabular/own_outputs.py:bodies.csv --workdir=runs/bodies
    jdlopt predict runs/bodies --input=new_bodies.csv --output=predictions.csv
"""

from ml_collections import ConfigDict


def get_config(file: str = "bodies.csv") -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": file,
            "target": ("height", "weight"),  # the columns to predict
            "task": "regression",
            "batch_size": 32,
            "preprocess": {"scale": "standard"},
        }
    )
    config.model = ConfigDict({"name": "mlp", "features": (64, 64)})
    config.loss = ConfigDict({"name": "mse"})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine"},
        }
    )
    config.train = ConfigDict({"epochs": 40, "patience": 10})
    return config
