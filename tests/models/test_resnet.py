"""Residual networks: the published sizes, their strides, and what doesn't fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

SMALL = {"name": "resnet", "stem": "cifar", "stage_sizes": (1, 1), "features": (4, 8)}


def count(section, shape, outputs):
    model = make_model(section, outputs)
    params, _ = jax.eval_shape(
        lambda key: model.init(key, jnp.ones((1, *shape)), {}), jax.random.key(0)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (34, 21_797_672),
        (50, 25_557_032),
        pytest.param(18, 11_689_512, marks=pytest.mark.slow),
        pytest.param(101, 44_549_160, marks=pytest.mark.slow),
        pytest.param(152, 60_192_808, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(depth, parameters):
    assert count({"name": "resnet", "depth": depth}, (224, 224, 3), 1000) == parameters


def test_a_new_block_is_the_identity():
    model = make_model({**SMALL, "features": (4, 4), "strides": (1, 1)}, 3)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 1))
    params, state = jax.jit(model.init)(jax.random.key(1), x, {})
    full = model.apply(params, state, x, {}, key=None, train=False)[0]
    wild = jax.tree.map(lambda leaf: leaf, params)
    wild["stage_0_block_0"]["conv_0"]["kernel"] = 100 + wild["stage_0_block_0"]["conv_0"]["kernel"]
    again = model.apply(wild, state, x, {}, key=None, train=False)[0]
    np.testing.assert_array_equal(again, full)


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({"stem": "imagenet"}, (7, 28), "model.stem 'cifar'"),
        ({}, (8, 8, 3, 1), "takes images of shape"),
        ({"features": (4,)}, (8, 8, 1), r"model.features: \(4,\) are 1, but there are 2 stages"),
        ({"strides": (2, 2, 2)}, (8, 8, 1), "model.strides"),
        ({"strides": (16, 1)}, (8, 8), "16 times smaller"),
        ({"stage_sizes": (1, 0)}, (8, 8), "model.stage_sizes: each must be at least 1"),
    ],
)
def test_what_does_not_fit_is_said(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_model({**SMALL, **keys}, 3).init(jax.random.key(0), jnp.ones((1, *shape)), {})
