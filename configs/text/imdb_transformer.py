"""IMDB film reviews, liked or not, with a small transformer encoder over word pieces.

Reaches: not measured yet.

IMDB reviews are a public TFDS dataset: prepare it once (docs/data.md), then train.

    python -m jdlopt.data.prepare imdb_reviews
    jdlopt train --config=configs/text/imdb_transformer.py --workdir=runs/imdb_transformer
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
            "text": {"vocab_size": 16000, "max_tokens": 256, "truncate": "start", "html": True},
            "augment": {"token_dropout": 0.1},
        }
    )
    config.model = ConfigDict(
        {
            "name": "transformer_encoder",
            "features": 128,
            "num_layers": 2,
            "num_heads": 4,
            "max_positions": 256,
            "dropout_rate": 0.2,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.05})
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 6, "patience": 3})
    return config


def get_space() -> Space:
    """How deep should it be?"""
    return {
        "model.num_layers": choice(1, 2, 4, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.4, role="nuisance"),
        "optim.learning_rate": log_uniform(1e-4, 2e-3, role="nuisance"),
    }
