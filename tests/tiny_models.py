"""A tiny model of each family, with weights none of which is near 0."""

from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdlopt import config as configs
from jdlopt.models import InputFacts, ModelFields, make_model
from jdlopt.models.ensemble import with_members
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights, as_arrays

OUTPUTS, BATCH = 3, 2


class Row(NamedTuple):
    """A tiny section, the shape of its inputs, and what else is known of them."""

    section: dict[str, Any]
    shape: tuple[int, ...] = ()
    tokens: int = 0
    columns: tuple[int, ...] = ()
    named: dict[str, Row] | None = None

    def inputs(self):
        if self.named is not None:
            return {name: row.inputs() for name, row in self.named.items()}
        if self.tokens:
            return jax.random.randint(jax.random.key(0), (BATCH, *self.shape), 0, self.tokens)
        x = jax.random.normal(jax.random.key(0), (BATCH, *self.shape))
        coded = len([count for count in self.columns if count])
        return x.at[:, x.shape[1] - coded :].set(1.0) if coded else x

    def model(self, section):
        if self.named is None:
            facts: dict[str, Any] = {"tokens": self.tokens, "columns": self.columns}
            facts["names"] = tuple(map(str, range(len(self.columns))))
        else:
            facts = {"named": {n: InputFacts(r.tokens, r.columns) for n, r in self.named.items()}}
        return make_model(section, OUTPUTS, **facts)


IMAGE = (8, 8, 2)
LAYERS = {"features": 8, "num_layers": 2, "num_heads": 4, "mlp_features": 6}
FAST = {
    "mlp": Row({"features": (6, 4), "batch_norm": True}, (5,)),
    "gru": Row({"features": 4, "num_layers": 2, "bidirectional": True}, (3, 2)),
    "resnet": Row(
        {"stem": "cifar", "stage_sizes": (1, 1), "features": (4, 6), "strides": (2, 1)}, IMAGE
    ),
}
SLOW = {
    "cnn": Row({"features": (4, 6), "hidden": (5,), "batch_norm": True, "pool": "max"}, IMAGE),
    "mlp of tokens": Row({"features": (6,), "embedding_features": 3}, (4,), tokens=7),
    "tabm": Row({"features": (6, 4), "submodels": 2}, (6,), columns=(0, 15, 7)),
    "linear": Row({}, (5,)),
    "cnn average": Row({"features": (4,), "readout": "average", "activation": "sigmoid"}, (9, 2)),
    "lstm": Row({"features": 5, "readout": "mean"}, (3, 2)),
    "tcn": Row({"features": (4, 4, 6)}, (5, 4)),
    "speech_rnn": Row({"features": 4, "cell": "lstm", "num_layers": 1}, (6, 3)),
    "conformer": Row(
        {"features": 8, "num_heads": 2, "num_layers": 1, "mlp_features": 6, "kernel_size": 3},
        (6, 3),
    ),
    "resnet bottleneck": Row(
        {"stem": "imagenet", "stage_sizes": (2, 1), "features": (4, 6), "bottleneck": True},
        (16, 16, 2),
    ),
    "resnet without shortcut": Row(
        {"stem": "cifar", "stage_sizes": (2, 2), "features": (4, 6)}, IMAGE
    ),
    "unet": Row({"features": 3, "depth": 2}, IMAGE),
    "vgg": Row({"features": (4, 6), "hidden": (6, 4), "batch_norm": True}, IMAGE),
    "efficientnet_lite0": Row(
        {
            "stage_sizes": (1, 2, 1), "features": (4, 6, 6), "kernel_sizes": (3, 3, 3),
            "strides": (1, 2, 1), "expansions": (1, 2, 3), "stem_features": 6, "last_features": 8,
        },
        (16, 16, 2),
    ),
    "convnext": Row(
        {
            "stage_sizes": (1, 2), "features": (4, 6), "patch_size": 2, "kernel_size": 3,
            "layer_scale": 0.5,
        },
        IMAGE,
    ),
    "transformer_encoder": Row({**LAYERS, "pooling": "cls"}, (4,), tokens=7),
    "transformer_decoder": Row({**LAYERS, "scan_layers": True}, (4,), tokens=7),
    "vit of experts": Row({**LAYERS, "patch_size": 4, "experts": 2}, IMAGE),
    "wide_and_deep": Row(
        {"features": (6, 4), "crosses": ("1*2",), "batch_norm": True}, (6,), columns=(0, 15, 7)
    ),
    "realmlp": Row({"features": (6, 4)}, (6,), columns=(0, 15, 7)),
    "fusion": Row(
        {
            "width": 5, "hidden": (4,), "table_features": (6,), "image_features": (4, 6),
            "sequence_features": (4,), "text_encoder": "gru",
        },
        named={
            "table": Row({}, (5,), columns=(0, 7, 3)),
            "photo": Row({}, IMAGE),
            "note": Row({}, (5,), tokens=11),
            "other note": Row({}, (4, 3)),
        },
    ),
    "fusion of words": Row({"width": 5, "hidden": ()}, (4,), tokens=7),
}  # fmt: skip
ROWS = {**FAST, **SLOW}


def base_config():
    """A resolved config whose model is put in later."""
    raw = {
        "data": {"source": "iris"},
        "mesh": {"data": 1},
        "model": {"name": "linear"},
        "optim": {"name": "sgd"},
    }
    return Experiment.build(raw, check=False).config


def drawn(rng, leaf):
    """Numbers none of which is near 0; positive ones for a variance."""
    signs = rng.choice([-1, 1], leaf.shape) if len(leaf.shape) > 1 else 1
    return jnp.asarray(signs * rng.uniform(0.2, 1.0, leaf.shape), leaf.dtype)


def made(base, row, name, ensemble=1):
    """A config, its model, and random weights of it."""
    section = {"name": name, "ensemble": ensemble, **row.section}
    checked = configs.section_of(ModelFields, section)
    config = dataclasses.replace(base, model=checked)
    model = row.model(section)
    if ensemble > 1:
        model = with_members(model, ensemble, lambda outputs: outputs.mean(axis=0))
    floats = configs.hyperparameters(config)["model"]
    hparams = as_arrays(floats)
    shapes = jax.eval_shape(model.init, jax.random.key(0), row.inputs(), hparams)
    rng = np.random.default_rng(1)
    params, state = jax.tree.map(partial(drawn, rng), shapes)
    return config, model, Weights(params, state, {"model": hparams})


def outputs(model, weights, row):
    apply = jax.jit(lambda w, x: model.apply(
        w.params, w.model_state, x, w.hparams["model"], key=None, train=False
    )[0])  # fmt: skip
    return np.asarray(apply(weights, row.inputs()))


def experiment_of(config, model, weights, row):
    """As much of an experiment as what looks at a model's layers needs."""
    shapes = jax.eval_shape(row.inputs)
    return SimpleNamespace(
        config=config, components=SimpleNamespace(model=model), seen=lambda count: shapes,
        hparams=weights.hparams,
    )  # fmt: skip


def remade(row, config):
    """The model of a config that `made` made and something changed."""
    model = row.model(configs.to_dict(config.model))
    if config.model.ensemble == 1:
        return model
    return with_members(model, config.model.ensemble, lambda outputs: outputs.mean(axis=0))


def check_same(base, row, name, change, ensemble=1):
    """What a change makes of a model fits the config that it makes, and says the same."""
    config, model, weights = made(base, row, name, ensemble)
    changed, other = change(experiment_of(config, model, weights, row), weights)
    after = remade(row, changed)
    hparams = weights.hparams["model"]
    shapes = jax.eval_shape(after.init, jax.random.key(0), row.inputs(), hparams)
    ours = other.params, other.model_state
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    expected = outputs(model, weights, row)
    found = outputs(after, other, row)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return changed, other
