"""SST-2 from GLUE, short phrases of film reviews, liked or not, with a bidirectional GRU.

Reaches: not measured yet.

SST-2 is a public TFDS dataset: prepare it once (docs/data.md), then train.

    python -m jdlopt.data.prepare glue/sst2
    jdlopt train --config=configs/text/sst2.py --workdir=runs/sst2
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "glue/sst2",
            "text_column": "sentence",
            "target": "label",
            "batch_size": 128,
            "text": {"vocab_size": 8000, "max_tokens": 48},
            "augment": {"token_dropout": 0.1},
        }
    )
    config.model = ConfigDict(
        {
            "name": "gru",
            "embedding_features": 64,
            "features": 96,
            "bidirectional": True,
            "readout": "mean",
            "dropout_rate": 0.4,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.05})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    # the published test split has no labels: what is reported is the validation split's
    config.train = ConfigDict({"epochs": 5, "evaluate_test": False})
    return config


def get_space() -> Space:
    """Is a GRU in both directions worth its time?"""
    return {
        "model.bidirectional": choice(True, False, role="scientific"),
        "data.augment.token_dropout": uniform(0.0, 0.3, role="nuisance"),
        "model.dropout_rate": uniform(0.1, 0.6, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 8e-3, role="nuisance"),
    }
