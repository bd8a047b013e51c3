"""A template for a table of your own whose columns are numbers, categories, texts and files.

The numbers and categories are one input; each column of texts, and of paths of images or sounds
(from the table's folder), is another. ``fusion`` has an encoder for each and a head on all of them.
What a column holds is guessed, and ``data describe`` tells what was; ``data.columns`` says it.

    jdlopt data describe --config=configs/tabular/own_mixed.py:my_table.csv
    jdlopt data check --config=configs/tabular/own_mixed.py:my_table.csv
    jdlopt train --config=configs/tabular/own_mixed.py:my_table.csv --workdir=runs/mixed
    jdlopt tune --config=configs/tabular/own_mixed.py:my_table.csv --workdir=runs/mixed_study
    jdlopt predict runs/mixed --input=new_rows.csv --output=predictions.csv
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config(file: str = "my_table.csv") -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": file,
            "target": "target",  # the column to predict
            "columns": {},  # such as {"note": "text", "photo": "image"}
            "ignore": (),  # such as ("id",)
            "batch_size": 32,
            # images of different sizes: "image_size": (64, 64); sounds: "seconds": 1.0
            "text": {"max_tokens": 64},
            # the keys that fit an input's kind are that input's
            "preprocess": {"scale": "standard", "encode": "embedding"},
        }
    )
    config.model = ConfigDict({"name": "fusion", "dropout_rate": 0.1})
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
    """How wide need each input's encoding be?"""
    return {
        "model.width": choice(16, 64, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.5, role="nuisance"),
        "optim.learning_rate": log_uniform(3e-4, 3e-2, role="nuisance"),
        "optim.weight_decay": log_uniform(1e-3, 0.5, role="nuisance"),
    }
