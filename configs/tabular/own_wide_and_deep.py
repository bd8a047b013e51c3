"""A template for a table of your own with columns of categories: a wide and deep model.

Copy it, name your file, the column to predict, and the categories whose combinations may matter
(``crosses``). The wide part has a weight for each category and combination, is trained by AdaGrad
and kept sparse by an L1 penalty; the deep part embeds categories and is trained by AdamW.

    jdlopt data describe --config=configs/tabular/own_wide_and_deep.py:my_table.csv
    jdlopt train --config=configs/tabular/own_wide_and_deep.py:my_table.csv --workdir=runs/wide_deep
    jdlopt tune --config=configs/tabular/own_wide_and_deep.py:my_table.csv --workdir=runs/wide_study
    jdlopt predict runs/wide_deep --input=new_rows.csv --output=predictions.csv
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
            "categorical": (),  # numbers that mean categories, such as ("postcode",)
            "batch_size": 32,
            "preprocess": {"scale": "standard", "encode": "embedding"},
        }
    )
    config.model = ConfigDict(
        {
            "name": "wide_and_deep",
            "crosses": (),  # such as ("education*occupation", "occupation*town")
            "cross_buckets": 1000,
            "features": (64, 32),
            "dropout_rate": 0.1,
        }
    )
    # for a number as the target: "mse"
    config.loss = ConfigDict({"name": "cross_entropy", "l1": 1e-5, "penalize": ("^wide/",)})
    config.optim = ConfigDict(
        {
            "name": "adamw",  # the deep part's
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "schedule": {"name": "cosine"},
            "groups": {
                "wide": {
                    "params": ("^wide/",),
                    "name": "adagrad",
                    "learning_rate": 0.05,
                    "weight_decay": 0.0,
                }
            },
        }
    )
    config.train = ConfigDict({"epochs": 40, "patience": 10, "monitor": "validation/loss"})
    return config


def get_space() -> Space:
    """How large need the deep part be beside the wide one?"""
    return {
        "model.features": choice((16,), (64, 32), (128, 64, 32), role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.5, role="nuisance"),
        "optim.learning_rate": log_uniform(3e-4, 3e-2, role="nuisance"),
        "optim.groups.wide.learning_rate": log_uniform(5e-3, 0.5, role="nuisance"),
        "loss.l1": log_uniform(1e-7, 1e-3, role="nuisance"),
    }
