"""A template for a table whose rows have any number of labels: multi-label classification.

Copy it, and say where the labels are: in a column of 0 and 1 (or true and false) for each,
``target=("action", "drama")``, or in one text with a delimiter between them, as here. A label is
predicted where its probability is above one half; ``data describe`` tells how many rows have each.

    jdlopt data describe --config=configs/tabular/own_labels.py:films.csv
    jdlopt train --config=configs/tabular/own_labels.py:films.csv --workdir=runs/films
    jdlopt predict runs/films --input=new_films.csv --output=predictions.csv
"""

from ml_collections import ConfigDict


def get_config(file: str = "films.csv") -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": file,
            "target": "labels",  # a text such as action|drama; or several columns
            "label_delimiter": "|",
            "batch_size": 32,
            "preprocess": {"scale": "standard"},
        }
    )
    config.model = ConfigDict({"name": "mlp", "features": (64, 64), "dropout_rate": 0.1})
    # rare labels count as much as their absence with {"class_weights": "balanced"}
    config.loss = ConfigDict({"name": "binary_cross_entropy"})
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
