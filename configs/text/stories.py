"""Short stories, written by a small GPT over byte pairs: the next token of texts.

The stories are made (2,000, a few names in each, which must be kept apart):

    python benchmarks/made_texts.py stories stories.txt
    jdlopt train --config=configs/text/stories.py --workdir=runs/stories
    echo "On Monday Belmir went to" > begun.txt
    jdlopt predict runs/stories --input=begun.txt --temperature=0.7

Reaches: not measured yet.

Any file with a text a line does as well, a folder of texts, or a table's column
(--config.data.source=FILE --config.data.text_column=NAME).
"""

from ml_collections import ConfigDict

from jdlopt.study.space import Space, choice, log_uniform, uniform


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "stories.txt",
            "task": "next_token",
            "batch_size": 32,
            "text": {
                "tokenizer": "bpe",
                "vocab_size": 512,
                "max_tokens": 128,
                "lowercase": False,
            },
        }
    )
    config.model = ConfigDict(
        {
            "name": "transformer_decoder",
            "features": 96,
            "num_layers": 2,
            "num_heads": 4,
            "max_positions": 256,
            "dropout_rate": 0.1,
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "schedule": {"name": "cosine", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 12})
    return config


def get_space() -> Space:
    """How deep should it be?"""
    return {
        "model.num_layers": choice(1, 2, 4, role="scientific"),
        "model.dropout_rate": uniform(0.0, 0.3, role="nuisance"),
        "optim.learning_rate": log_uniform(5e-4, 1e-2, role="nuisance"),
    }
