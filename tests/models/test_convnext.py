"""ConvNeXt: the published size, small images, and what doesn't fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.errors import ConfigError
from jdlopt.models import make_model

SMALL = {"name": "convnext", "stage_sizes": (1, 1), "features": (4, 6), "kernel_size": 3}


def shapes(section, shape, outputs=3, hparams=None):
    model, x = make_model(section, outputs), jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, hparams or {}), x)[0]


def test_tiny_has_as_many_parameters_as_published():
    params = shapes({"name": "convnext"}, (224, 224, 3), 1000)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 28_589_128


@pytest.mark.parametrize("size", [28, 32])
def test_small_images(size):
    params = shapes({"name": "convnext", "patch_size": 2}, (size, size))
    assert params["stem"]["kernel"].shape == (2, 2, 1, 96)
    assert params["stage_3_block_2"]["depthwise"]["kernel"].shape == (7, 7, 1, 768)


def test_a_blocks_scale_starts_as_told():
    x, hparams = jnp.ones((2, 8, 8)), {"layer_scale": jnp.float32(0.25)}
    params, _ = jax.jit(lambda: make_model(SMALL, 3).init(jax.random.key(0), x, hparams))()
    np.testing.assert_array_equal(params["stage_1_block_0"]["scale"], np.full(6, 0.25, np.float32))
    assert "scale" not in shapes({**SMALL, "layer_scale": None}, (8, 8))["stage_0_block_0"]


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({}, (7, 28, 3), r"makes images 8 times smaller .*the data's are 7×28. Use a smaller"),
        ({}, (8,), "takes images of shape"),
        ({"features": (4,)}, (8, 8), r"model.features: .* each of the 2 stages .*found \(4,\)"),
        ({"stage_sizes": (1, 0)}, (8, 8), "model.stage_sizes: expected a number of at least 1"),
        ({"stage_sizes": ()}, (8, 8), "model.stage_sizes: expected"),
    ],
)
def test_what_does_not_fit_is_said(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        shapes({**SMALL, **keys}, shape)
