"""Dates as people write them in three languages, to be written as ISO 8601: 1999-03-07.

Reaches: not measured yet. Copying the source, the baseline, gets none of them right.

Made data: the script writes them, a pure function of a seed. The model is a small encoder-decoder
transformer over characters; to predict it writes the target greedily, or with a beam.

    python benchmarks/dates.py dates.csv
    jdlopt train --config=configs/text/dates.py --workdir=runs/dates
    jdlopt predict runs/dates --input=dates.csv --beam-width=4
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config(file: str = "dates.csv") -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": file,
            "task": "seq2seq",
            "text_column": "written",
            "target": "iso",
            "batch_size": 64,
            "text": {"tokenizer": "characters", "max_tokens": 40, "lowercase": False},
            "target_text": {"tokenizer": "characters", "max_tokens": 12},
        }
    )
    config.model = ConfigDict(
        {
            "name": "transformer_seq2seq",
            "features": 64,
            "num_layers": 2,
            "num_heads": 4,
            "mlp_features": 128,
            "max_positions": 40,
            "dropout_rate": 0.1,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy"})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 30})
    return config


def get_space() -> Space:
    """How deep should it be?"""
    return {
        "model.num_layers": choice(1, 2, 3, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.3, role="nuisance"),
        "optim.learning_rate": log_uniform(3e-4, 5e-3, role="nuisance"),
    }
