"""A tiny model of each family with data that it fits, untrained but with no constant weight."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd

from jdlopt.data.given import open_given
from jdlopt.export.program import Program, make_program
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

RNG = np.random.default_rng(0)
N = 48
CLASSES = np.arange(N) % 3
NAMES = [f"c{one}" for one in CLASSES]
IMAGES = RNG.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
MASKS = (IMAGES[..., 0] > 127).astype(np.int32)
SERIES = RNG.normal(size=(N, 12, 3)).astype(np.float32)
ROWS = RNG.normal(size=(N, 12)).astype(np.float32)
WAVES = RNG.normal(size=(N, 800)).astype(np.float32)
WORDS = ["red", "blue", "green", "stone", "river", "sky"]
TEXTS = pd.DataFrame(
    {"words": [" ".join(RNG.choice(WORDS, 1 + i % 6)) for i in range(N)], "y": NAMES}
)
TABLE = pd.DataFrame(
    {
        "a": np.where(RNG.random(N) < 0.2, np.nan, RNG.normal(size=N)),
        "b": RNG.normal(size=N) * 100,
        "colour": RNG.choice(["red", "blue", "green"], N),
        "shape": RNG.choice(["x", "y"], N),
        "y": NAMES,
    }
)
LAYERS = {"features": 8, "num_layers": 2, "num_heads": 2, "mlp_features": 12}


def table(**preprocess: Any) -> dict[str, Any]:
    """The data section of `TABLE`."""
    return {"target": "y", "preprocess": preprocess}


TEXT = {"target": "y", "columns": {"words": "text"}, "text": {"max_tokens": 7}}
EMBEDDED = {"missing": "median", "encode": "embedding"}
WAVE = {"audio": "log_mel", "n_fft": 128, "hop": 64, "num_mels": 8, "normalize": "utterance"}
SMALL = {"features": (4, 8), "stage_sizes": (1, 1)}
LITE = {
    **SMALL, "kernel_sizes": (3, 5), "strides": (1, 2), "expansions": (1, 2), "stem_features": 4,
    "stem_strides": 1, "last_features": 8,
}  # fmt: skip
FUSION = {
    "width": 8, "hidden": (8,), "table_features": (8,), "image_features": (4,),
    "sequence_features": (4,),
}  # fmt: skip

FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "linear": ({"name": "linear"}, {"preprocess": {"scale": "minmax"}}, (ROWS, CLASSES)),
    "mlp": (
        {"name": "mlp", "features": (8,), "batch_norm": True, "dropout_rate": 0.2},
        table(scale="standard", missing="mean", missing_indicator=True),
        TABLE,
    ),
    "regression": (
        {"name": "mlp", "features": (8,), "activation": "gelu"},
        {"preprocess": {"scale": "robust_clipped", "pca": 4}},
        (ROWS, ROWS[:, 0] * 30 + 100),
    ),
    "labels": (
        {"name": "mlp", "features": (8,), "dtype": "bfloat16"},
        {"task": "multilabel"},
        (ROWS, (ROWS[:, :4] > 0).astype(int)),
    ),
    "ensemble": ({"name": "mlp", "features": (8,), "ensemble": 3}, {}, (ROWS, CLASSES)),
    "lora": ({"name": "cnn", "features": (4, 8), "lora_rank": 2}, {}, (IMAGES, CLASSES)),
    "cnn": (
        {"name": "cnn", "features": (4, 8), "pool": "max", "batch_norm": True},
        {"preprocess": {"standardize": True}},
        (IMAGES, CLASSES),
    ),
    "unet": (
        {"name": "unet", "features": 4, "depth": 2},
        {"task": "segmentation"},
        (IMAGES, MASKS),
    ),
    "resnet of masks": (
        {"name": "resnet", "stem": "cifar", **SMALL},
        {"task": "segmentation"},
        (IMAGES, MASKS),
    ),
    "gru": ({"name": "gru", "features": 8, "bidirectional": True}, {}, (SERIES, CLASSES)),
    "gru of texts": ({"name": "gru", "features": 8}, TEXT, TEXTS),
    "lstm": (
        {"name": "lstm", "features": 8, "num_layers": 2, "readout": "mean"},
        {},
        (SERIES, CLASSES),
    ),
    "tcn": ({"name": "tcn", "features": (4, 8)}, {}, (SERIES, CLASSES)),
    "speech_rnn": ({"name": "speech_rnn", "features": 8}, {}, (SERIES, CLASSES)),
    "conformer": (
        {"name": "conformer", "features": 8, "num_layers": 1, "num_heads": 2, "kernel_size": 3},
        {},
        (SERIES, CLASSES),
    ),
    "resnet": ({"name": "resnet", "stem": "cifar", **SMALL}, {}, (IMAGES, CLASSES)),
    "resnet of large images": (
        {"name": "resnet", "stem": "imagenet", **SMALL},
        {"preprocess": {"resize": (32, 32)}},
        (IMAGES, CLASSES),
    ),
    "vgg": (
        {"name": "vgg", "features": (4, 8), "hidden": (8,), "batch_norm": True},
        {},
        (IMAGES, CLASSES),
    ),
    "efficientnet_lite0": ({"name": "efficientnet_lite0", **LITE}, {}, (IMAGES, CLASSES)),
    "convnext": (
        {"name": "convnext", **SMALL, "patch_size": 2, "kernel_size": 3},
        {},
        (IMAGES, CLASSES),
    ),
    "transformer_encoder": ({"name": "transformer_encoder", **LAYERS}, TEXT, TEXTS),
    "transformer_decoder": (
        {"name": "transformer_decoder", **LAYERS, "scan_layers": True},
        TEXT,
        TEXTS,
    ),
    "vit": ({"name": "vit", **LAYERS, "patch_size": 2}, {}, (IMAGES, CLASSES)),
    "transformer of experts": (
        {"name": "transformer_encoder", **LAYERS, "experts": 3, "experts_per_token": 2},
        TEXT,
        TEXTS,
    ),
    "realmlp": (
        {"name": "realmlp", "features": (8,)},
        table(scale="robust_clipped", **EMBEDDED),
        TABLE,
    ),
    "tabm": (
        {"name": "tabm", "features": (8, 8), "submodels": 3},
        table(scale="quantile", bins=4, **EMBEDDED),
        TABLE,
    ),
    "wide_and_deep": (
        {"name": "wide_and_deep", "features": (8,), "crosses": ("colour*shape",)},
        table(scale="standard", **EMBEDDED),
        TABLE,
    ),
    "fusion": (
        {"name": "fusion", **FUSION},
        {},
        ({"photo": IMAGES, "row": ROWS, "series": SERIES}, CLASSES),
    ),
    "sound": (
        {"name": "cnn", "features": (4,)},
        {"preprocess": WAVE},
        (WAVES, CLASSES),
    ),
}
"""Family → its model section, its data section, and the data."""


def built(model: dict[str, Any], data: dict[str, Any], given: Any) -> Experiment:
    """Returns the experiment of a model section, a data section and data."""
    config = {
        "data": {"source": "made", "batch_size": 8, **data},
        "model": model,
        "optim": {"name": "adam", "learning_rate": 1e-2},
        "train": {"steps": 3},
    }
    dataset = open_given(config["data"], given)
    if given is FAMILIES["sound"][2]:  # arrays in memory have no rate of their own
        inputs = dataclasses.replace(dataset.spec.input, sample_rate=8000)
        dataset = dataclasses.replace(
            dataset, spec=dataclasses.replace(dataset.spec, inputs=inputs)
        )
    return Experiment.build(config, dataset)


def experiment_of(family: str) -> Experiment:
    """Returns the experiment of a family."""
    return built(*FAMILIES[family])


def weights_of(experiment: Experiment) -> Weights:
    """Returns weights in which no bias or scale is constant, which would hide much."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: experiment.weights(experiment.init(0)))

    def drawn(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim < 2:
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        return np.float32(rng.normal(0, 1.5 * np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape))

    return Weights(
        params=jax.tree.map(drawn, shapes.params),
        model_state=jax.tree.map(drawn, shapes.model_state),
        hparams=experiment.hparams,
        preprocess=experiment.learnt,
    )


def program_of(family: str) -> tuple[Program, list[np.ndarray]]:
    """Returns what a file of a family computes, and the training examples."""
    experiment = experiment_of(family)
    inputs = experiment.data.read("train").inputs
    program = make_program(experiment, weights_of(experiment))
    return program, [
        inputs[name] if isinstance(inputs, dict) else inputs for name in program.inputs
    ]
