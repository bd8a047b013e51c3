"""VGG: the published sizes, and what doesn't fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

SMALL = {"name": "vgg", "features": (3, 4), "hidden": (5,)}


@pytest.mark.parametrize(
    ("keys", "parameters"),
    [
        ({"depth": 16}, 138_357_544),
        ({"depth": 19}, 143_667_240),
        # two numbers for each of 4,224 channels, and the biases that stay
        ({"depth": 16, "batch_norm": True}, 138_365_992),
    ],
)
def test_published_sizes(keys, parameters):
    model = make_model({"name": "vgg", **keys}, 1000)
    params, _ = jax.eval_shape(
        lambda key: model.init(key, jnp.ones((1, 224, 224, 3)), {}), jax.random.key(0)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({}, (3, 8, 3), "need 4 pixels at least; the data's are 3×8"),
        ({}, (8,), "takes images of shape"),
        ({"features": (4,) * 6}, (99, 99), "model.features: expected 1 to 5 widths"),
    ],
)
def test_what_does_not_fit_is_said(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_model({**SMALL, **keys}, 3).init(jax.random.key(0), jnp.ones((1, *shape)), {})
