from __future__ import annotations

import functools
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
from jdlopt.data.preprocess import Recipe, apply, fit, fit_batches, from_dict, kind_of, to_dict

SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler}


def recipe_for(scale, inputs):
    return Recipe(PreprocessFields(scale), kind_of(inputs.shape[1:], str(inputs.dtype)))


def fitted(scale, inputs):
    """Preprocessing of a whole split: its function, and what it learnt."""
    recipe = recipe_for(scale, inputs)
    state = fit(recipe, Arrays(inputs, np.zeros(len(inputs), np.int32)))
    return functools.partial(apply, recipe), state


@pytest.mark.parametrize("scale", SCALERS)
@given(arrays(np.float32, (7, 3), elements=st.floats(-100, 100, width=32)))
@settings(max_examples=40, deadline=None)
def test_equals_scikit_learn_feature_by_feature(scale, inputs):
    inputs[:, 2] = inputs[:, 2].round()  # now and then a constant feature
    expected = SCALERS[scale]().fit_transform(inputs.astype(np.float64))
    # float32 inputs near a large mean lose digits in the subtraction
    tolerance = 1e-5 + 4e-6 * np.abs(inputs).max() / np.maximum(inputs.std(axis=0), 1e-30)
    preprocess, state = fitted(scale, inputs)
    result = np.asarray(preprocess(state, inputs))
    assert np.isfinite(result).all()
    varied = inputs.std(axis=0) > 1e-3
    assert (np.abs(result - expected) <= tolerance)[:, varied].all()


@pytest.mark.parametrize("scale", SCALERS)
def test_uint8_images_are_scaled_channel_by_channel(scale):
    inputs = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
    expected = SCALERS[scale]().fit_transform(inputs.reshape(-1, 3) / 255.0)
    preprocess, state = fitted(scale, inputs)
    assert {name: values.dtype for name, values in state["scale"].items()} == {
        "shift": np.float32,
        "rest": np.float32,
        "scale": np.float32,
    }
    result = jax.jit(preprocess)(state, inputs)
    np.testing.assert_allclose(result, expected.reshape(inputs.shape), rtol=1e-4, atol=1e-5)


def test_none_divides_uint8_only():
    preprocess, state = fitted("none", np.zeros((2, 2), np.float32))
    assert state == {}
    np.testing.assert_array_equal(preprocess({}, np.array([[0, 255]], np.uint8)), [[0.0, 1.0]])
    values = preprocess({}, jnp.array([[0.0, 255.0]]))
    np.testing.assert_array_equal(values, [[0.0, 255.0]])
    assert values.dtype == jnp.float32


def test_a_constant_feature_becomes_zero():
    inputs = np.full((5, 1), 3.0, np.float32)
    for scale in SCALERS:
        preprocess, state = fitted(scale, inputs)
        np.testing.assert_array_equal(preprocess(state, inputs), np.zeros((5, 1)))


def test_batches_give_the_same_state():
    inputs = np.random.default_rng(1).normal(size=(64, 8, 2)).astype(np.float32)
    _, whole = fitted("standard", inputs)
    parts = fit_batches(recipe_for("standard", inputs), lambda: iter(np.split(inputs, 8)))
    for name, values in whole["scale"].items():
        np.testing.assert_allclose(values, parts["scale"][name], rtol=1e-6, atol=1e-7)


@given(arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@settings(max_examples=40, deadline=None)
def test_survives_json_to_the_bit(values):
    state = {"shift": values, "rest": values * 0, "scale": np.abs(values) + np.float32(1)}
    back = from_dict(json.loads(json.dumps(to_dict(state))))
    for name in state:
        assert back[name].tobytes() == state[name].tobytes()
        assert back[name].dtype == np.float32
