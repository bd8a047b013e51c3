"""A template for a table of your own: copy it, name your file and the column to predict.

Every column but the target is a feature: numbers, or text, whose values are categories; leave
others out with ``ignore``. The file is split into train, validation and test, by class where the
target is a class. What is wrong with the file or the config is said before anything is trained, and
``data check`` tells what is odd in it.

    jdlopt data check my_table.csv --target=target
    jdlopt data describe --config=configs/tabular/own_csv.py:my_table.csv
    jdlopt train --config=configs/tabular/own_csv.py:my_table.csv --workdir=runs/my_table
    jdlopt tune --config=configs/tabular/own_csv.py:my_table.csv --workdir=runs/my_table_study
    jdlopt predict runs/my_table --input=new_rows.csv --output=predictions.csv
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config(file: str = "my_table.csv") -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": file,
            "target": "target",  # the column to predict
            "ignore": (),  # such as ("id", "date")
            "batch_size": 32,
            # for gaps in the table: "missing": "median"; for far-off values: "outliers": "iqr"
            "preprocess": {"scale": "standard"},
        }
    )
    config.model = ConfigDict({"name": "mlp", "features": (64, 64), "dropout_rate": 0.1})
    # for a number as the target: {"name": "mse"}
    config.loss = ConfigDict({"name": "cross_entropy"})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine"},
        }
    )
    config.train = ConfigDict({"epochs": 40, "patience": 10, "monitor": "validation/loss"})
    return config


def get_space() -> Space:
    """How deep and wide need the network be?"""
    return {
        "model.features": choice((16,), (64, 64), (64, 64, 64), role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.5, role="nuisance"),
        "optim.learning_rate": log_uniform(3e-4, 3e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.5, role="nuisance"),
    }
