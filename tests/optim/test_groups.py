"""Parameter groups: which paths a pattern finds, and what decays by default."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jdlopt.errors import ConfigError
from jdlopt.optim.groups import decay_mask, matching


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(4, (3,))(x))
        x = nn.BatchNorm(use_running_average=True)(x)
        x = nn.RNN(nn.GRUCell(5))(x)
        return nn.Dense(2, name="rescale")(x)


def test_kernels_decay_and_biases_and_norms_do_not():
    params = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 6, 3)))["params"]
    mask = decay_mask(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    for path, decays in jax.tree_util.tree_leaves_with_path(mask):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert decays == name.endswith("kernel"), name


def test_no_patterns_exclude_nothing():
    assert decay_mask({"bias": 1, "deep": [1, {"scale": 2}]}, ()) == {
        "bias": True,
        "deep": [True, {"scale": True}],
    }


def test_patterns_see_the_whole_path():
    params = {"layers": [{"kernel": 0}, {"kernel": 0}]}
    assert matching(params, ["layers/1/"]) == {"layers": [{"kernel": False}, {"kernel": True}]}


def test_a_bad_pattern_is_named():
    with pytest.raises(ConfigError, match=r"'\(' is not a regular expression"):
        matching({}, ["("])
