"""IMDB film reviews, liked or not, with embedded word pieces and a 1-D CNN.

Reaches: not measured yet.

IMDB reviews are a public TFDS dataset: prepare it once (docs/data.md), then train.

    python -m jdlopt.data.prepare imdb_reviews
    jdlopt train --config=configs/text/imdb_reviews.py --workdir=runs/imdb_reviews
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "imdb_reviews",
            "text_column": "text",
            "target": "label",
            "batch_size": 64,
            # reviews hold <br /> tags, and say at their end what they think
            "text": {"vocab_size": 16000, "max_tokens": 384, "truncate": "start", "html": True},
            "augment": {"token_dropout": 0.1},
        }
    )
    config.model = ConfigDict(
        {
            "name": "cnn",
            "embedding_features": 64,
            "features": (128,),
            "kernel_size": 5,
            "readout": "average",
            "hidden": (64,),
            "dropout_rate": 0.4,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.05})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 6, "patience": 3})
    return config


def get_space() -> Space:
    """How large a vocabulary pays?"""
    return {
        "data.text.vocab_size": choice(4000, 16000, role="scientific"),
        "data.augment.token_dropout": uniform(0.0, 0.3, role="nuisance"),
        "model.dropout_rate": uniform(0.1, 0.6, role="nuisance"),
        "optim.learning_rate": log_uniform(3e-4, 5e-3, role="nuisance"),
    }
