"""EfficientNet-Lite0: small images, and what doesn't fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

SMALL = {
    "name": "efficientnet_lite0",
    "stage_sizes": (1, 2),
    "features": (4, 6),
    "kernel_sizes": (3, 5),
    "strides": (1, 2),
    "expansions": (1, 2),
    "stem_features": 4,
    "stem_strides": 1,
    "last_features": 8,
}


def test_blocks_are_numbered_through_the_stages():
    model, images = make_model(SMALL, 3), jax.ShapeDtypeStruct((2, 5, 6), jnp.float32)
    params, state = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, {}), images)
    assert sorted(params) == [
        *("block_00", "block_01", "block_02", "head", "last", "last_norm", "stem", "stem_norm")
    ]
    assert params["block_00"]["depthwise"]["kernel"].shape == (3, 3, 1, 4)
    assert params["block_01"]["expand"]["kernel"].shape == (1, 1, 4, 8)
    assert params["block_02"]["depthwise"]["kernel"].shape == (5, 5, 1, 12)
    assert params["block_02"]["project"]["kernel"].shape == (1, 1, 12, 6)
    assert "expand" not in params["block_00"]
    assert state["batch_stats"]["block_02"]["project_norm"]["norm"]["mean"].shape == (6,)


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({}, (1, 8, 3), r"makes images 2 times smaller .*the data's are 1×8"),
        ({"stem_strides": 8}, (12, 12), "16 times smaller .*Use smaller strides"),
        ({}, (8,), "takes images of shape"),
        ({"features": (4,)}, (8, 8), r"model.features: .* each of the 2 stages .*found \(4,\)"),
        ({"expansions": (1, 0)}, (8, 8), "model.expansions: expected a number of at least 1"),
        ({"stage_sizes": ()}, (8, 8), "model.stage_sizes: expected"),
    ],
)
def test_what_does_not_fit_is_said(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_model({**SMALL, **keys}, 3).init(jax.random.key(0), jnp.ones((1, *shape)), {})
