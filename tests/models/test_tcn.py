"""Temporal convolutional networks: the convolution, causality, and what doesn't fit."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.tcn import TemporalBlock, causal_convolution


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_convolution_is_laxs(length, taps, dilation, channels):
    keys = jax.random.split(jax.random.key(length), 2)
    x = jax.random.normal(keys[0], (2, length, channels))
    kernel = jax.random.normal(keys[1], (taps, channels, 3))
    expected = jax.lax.conv_general_dilated(
        x,
        kernel,
        (1,),
        [((taps - 1) * dilation, 0)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    found = causal_convolution(x, kernel, dilation)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_nothing_looks_ahead():
    block = TemporalBlock(4, 4, 3, 2, "relu", "he_normal", None)
    x = jax.random.normal(jax.random.key(0), (1, 10, 2))
    variables = block.init(jax.random.key(1), x, False)
    seen = jax.jacobian(lambda x: block.apply(variables, x, False).sum(axis=-1)[0])(x)[:, 0]
    reached = np.abs(seen).sum(axis=-1) > 0  # (output time, input time)
    assert not np.triu(reached, 1).any() and np.diag(reached).all()
    assert not np.tril(reached, -9).any()  # two convolutions of 2 taps back, 2 apart


@pytest.mark.parametrize(
    ("keys", "shape"),
    [({}, (12,)), ({"readout": "mean"}, (12, 3)), ({"remat": "full", "kernel_size": 2}, (4, 5, 2))],
)
def test_shapes(keys, shape):
    section = {"name": "tcn", "features": (4, 6), "dropout_rate": 0.1, **keys}
    model, rates = make_model(section, 3), {"dropout_rate": jnp.float32(0.5)}
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    params, state = jax.eval_shape(model.init, jax.random.key(1), x, rates)
    assert params["head"]["outputs"]["kernel"].shape == (6, 3)
    apply = partial(model.apply, key=jax.random.key(2), train=True)
    assert jax.eval_shape(apply, params, state, x, rates)[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({}, (2, 2, 2, 2), "'tcn' takes inputs of shape"),
        ({"features": ()}, (8,), "model.features: expected the width of at least one block"),
        ({"features": (4, 0)}, (8,), "model.features"),
    ],
)
def test_what_does_not_fit_is_said(keys, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_model({"name": "tcn", **keys}, 2).init(jax.random.key(0), jnp.ones((1, *shape)), {})
