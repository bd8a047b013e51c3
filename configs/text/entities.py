"""People, places and firms in sentences, with a bidirectional GRU over word pieces.

The sentences are made (2,000, half of their names in no training sentence):

    python benchmarks/made_texts.py entities entities.conll
    jdlopt train --config=configs/text/entities.py --workdir=runs/entities

Reaches: not measured yet.

Any CoNLL file with BIO tags does as well: --config.data.source=FILE.
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "entities.conll",
            "task": "token_classification",
            "batch_size": 64,
            # capitals tell names
            "text": {"vocab_size": 600, "max_tokens": 48, "lowercase": False},
        }
    )
    config.model = ConfigDict(
        {
            "name": "gru",
            "embedding_features": 64,
            "features": 64,
            "bidirectional": True,
            "dropout_rate": 0.3,
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 8})
    return config


def get_space() -> Space:
    """Which way must a sentence be read?"""
    return {
        "model.bidirectional": choice(True, False, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.6, role="nuisance"),
        "optim.learning_rate": log_uniform(1e-3, 2e-2, role="nuisance"),
    }
