"""VGG: the published sizes, and what doesn't fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
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


@pytest.mark.parametrize("batch_norm", [False, True])
def test_remat_changes_no_gradient(batch_norm):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8))
    section = {**SMALL, "batch_norm": batch_norm}
    params, state = make_model(section, 3).init(jax.random.key(1), x, {})

    def gradient(remat):
        model = make_model({**section, "remat": remat}, 3)

        def loss(params):
            return (model.apply(params, state, x, {}, key=None, train=True)[0] ** 2).sum()

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradient("full"),
        gradient("none"),
    )


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
