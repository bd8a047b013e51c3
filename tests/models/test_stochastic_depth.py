"""Stochastic depth: whole branches are left out, example by example, and only while training."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.models.convnext import ConvNeXt
from jdlopt.models.efficientnet import EfficientNetLite0
from jdlopt.models.layers import DropPath, rates_by_depth
from jdlopt.models.resnet import ResNet

SMALL = {
    "convnext": partial(
        ConvNeXt, 3, stage_sizes=(1, 2), features=(8, 16), patch_size=2, layer_scale=1.0
    ),
    "efficientnet_lite0": partial(
        EfficientNetLite0, 3, stage_sizes=(1, 2), features=(8, 8), kernel_sizes=(3, 3),
        strides=(1, 1), expansions=(1, 2), stem_features=8, stem_strides=1, last_features=16,
    ),
    "resnet": partial(ResNet, 3, stem="cifar", stage_sizes=(1, 2), features=(8, 16)),
}  # fmt: skip


def test_a_branch_is_dropped_whole_and_keeps_its_expectation() -> None:
    y = jnp.ones((4000, 3, 2))
    found = np.asarray(DropPath(0.25).apply({}, y, True, rngs={"dropout": jax.random.key(0)}))
    each = found.reshape(len(y), -1)
    assert (each == each[:, :1]).all()
    np.testing.assert_allclose(np.unique(each), [0, 4 / 3], rtol=1e-6)
    assert abs(each[:, 0].mean() - 1) < 4 * (1 / 3 / len(y)) ** 0.5  # variance: rate / keep


def test_rates_grow_evenly_with_depth() -> None:
    assert rates_by_depth(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert rates_by_depth(0.3, 1) == [0]
    assert rates_by_depth(None, 2) == [None, None]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in SMALL],
)
def test_no_rate_is_a_rate_of_zero_and_evaluation_drops_nothing(name) -> None:
    x = jax.random.normal(jax.random.key(0), (6, 16, 16, 3))
    make = SMALL[name]
    variables = make().init(jax.random.key(1), x)
    leaves = jax.tree.leaves(variables["params"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
    variables = {  # a new residual block of some models is the identity
        **variables,
        "params": jax.tree.unflatten(jax.tree.structure(variables["params"]), moved),
    }

    @partial(jax.jit, static_argnums=1)
    def outputs(rate, train):
        return make(drop_path_rate=rate).apply(
            variables, x, train, rngs={"dropout": jax.random.key(3)}, mutable=["batch_stats"]
        )[0]

    without = make().apply(
        variables, x, True, rngs={"dropout": jax.random.key(3)}, mutable=["batch_stats"]
    )[0]
    np.testing.assert_allclose(outputs(0.0, True), without, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(outputs(0.9, True) - without).max()) > 1e-2
    np.testing.assert_allclose(
        outputs(0.9, False), make().apply(variables, x, False), rtol=1e-4, atol=1e-5
    )
