from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from jdlopt.data import Arrays, PreprocessFields
from jdlopt.data.preprocess import apply, fit, fit_batches, from_dict, to_dict

SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler}


def fitted(scale, inputs):
    return fit(PreprocessFields(scale), Arrays(inputs, np.zeros(len(inputs), np.int32)))


@pytest.mark.parametrize("scale", SCALERS)
@given(arrays(np.float32, (7, 3), elements=st.floats(-100, 100, width=32)))
@settings(max_examples=40, deadline=None)
def test_equals_scikit_learn_feature_by_feature(scale, inputs):
    inputs[:, 2] = inputs[:, 2].round()  # now and then a constant feature
    expected = SCALERS[scale]().fit_transform(inputs.astype(np.float64))
    # float32 inputs near a large mean lose digits in the subtraction
    tolerance = 1e-5 + 4e-6 * np.abs(inputs).max() / np.maximum(inputs.std(axis=0), 1e-30)
    result = np.asarray(apply(fitted(scale, inputs), inputs))
    assert np.isfinite(result).all()
    varied = inputs.std(axis=0) > 1e-3
    assert (np.abs(result - expected) <= tolerance)[:, varied].all()


@pytest.mark.parametrize("scale", SCALERS)
def test_uint8_images_are_scaled_channel_by_channel(scale):
    inputs = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
    expected = SCALERS[scale]().fit_transform(inputs.reshape(-1, 3) / 255.0)
    state = fitted(scale, inputs)
    assert {name: values.dtype for name, values in state.items()} == {
        "shift": np.float32,
        "scale": np.float32,
    }
    result = jax.jit(apply)(state, inputs)
    np.testing.assert_allclose(result, expected.reshape(inputs.shape), rtol=1e-4, atol=1e-5)


def test_none_divides_uint8_only():
    assert fitted("none", np.zeros((2, 3), np.float32)) == {}
    np.testing.assert_array_equal(apply({}, np.array([0, 255], np.uint8)), [0.0, 1.0])
    values = apply({}, jnp.array([0.0, 255.0]))
    np.testing.assert_array_equal(values, [0.0, 255.0])
    assert values.dtype == jnp.float32


def test_a_constant_feature_becomes_zero():
    inputs = np.full((5, 1), 3.0, np.float32)
    for scale in SCALERS:
        np.testing.assert_array_equal(apply(fitted(scale, inputs), inputs), np.zeros((5, 1)))


def test_batches_give_the_same_state():
    inputs = np.random.default_rng(1).normal(size=(64, 8, 2)).astype(np.float32)
    whole = fitted("standard", inputs)
    parts = fit_batches({"scale": "standard"}, np.split(inputs, 8))
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-6, atol=1e-7)


@given(arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@settings(max_examples=40, deadline=None)
def test_survives_json_to_the_bit(values):
    state = {"shift": values, "scale": np.abs(values) + np.float32(1)}
    back = from_dict(json.loads(json.dumps(to_dict(state))))
    for name in state:
        assert back[name].tobytes() == state[name].tobytes()
        assert back[name].dtype == np.float32
