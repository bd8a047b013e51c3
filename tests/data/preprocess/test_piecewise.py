"""Bins of numbers: their encoding against the formula; which columns of a table have them."""

from __future__ import annotations

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jdlopt.data import preprocess
from jdlopt.data.pools import Arrays
from jdlopt.data.preprocess import piecewise
from jdlopt.data.spec import InputSpec
from jdlopt.errors import ConfigError

NUMBERS = st.floats(-100, 100, width=16)


def reference(train, values, bins):
    """The encoding, number by number, by the paper's formula with closed outer bins."""
    rows = []
    for row in values:
        found = list(row)
        for column, x in enumerate(row):
            edges = np.unique(np.quantile(train[:, column], np.linspace(0, 1, bins + 1)))
            shares = [np.clip((x - a) / (b - a), 0, 1) for a, b in pairwise(edges)]
            found += shares + [0.0] * (bins - len(shares))
        rows.append(found)
    return np.array(rows)


@given(
    hnp.arrays(np.float32, (7, 2), elements=NUMBERS),
    hnp.arrays(np.float32, (3, 2), elements=NUMBERS),
    st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_equals_the_formula(train, values, bins):
    train = np.round(train, 1)
    state = piecewise.fit(train.astype(np.float64), bins=bins, numeric=np.ones(2, bool))
    found = np.asarray(piecewise.apply(state, values))
    # an edge that float32 rounds moves a step of a narrow bin
    np.testing.assert_allclose(found, reference(train, values, bins), atol=1e-3)


def test_codes_and_appended_columns_have_no_bins_and_missing_values_stay():
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=(40, 2)), rng.integers(0, 4, 40)]).astype(np.float32)
    values[3, 1] = np.nan
    spec = InputSpec((3,), "float32", ("a", "b", "town"), "fill", {"town": ("x", "y", "z")})
    section = {"bins": 4, "missing": "median", "missing_indicator": True, "encode": "embedding"}
    recipe = preprocess.make_recipe({**section, "scale": "quantile"}, spec)
    state = preprocess.fit(recipe, Arrays(values, None))
    found = np.asarray(jax.jit(lambda s, x: preprocess.apply(recipe, s, x))(state, values))
    assert found.shape == (40, 3 + 1 + 2 * 4)
    np.testing.assert_array_equal(found[:, 2], values[:, 2])  # the codes, then what is appended
    np.testing.assert_array_equal(found[:, 3], np.isnan(values[:, 1]))
    assert np.isfinite(found).all()
    assert ((found[:, 4:] >= 0) & (found[:, 4:] <= 1)).all()
    assert preprocess.output_shape(recipe, state, spec).shape == found.shape[1:]
    back = preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict(state))))
    np.testing.assert_allclose(preprocess.apply(recipe, back, values), found, rtol=1e-6)
    alone = piecewise.apply(state["bins"], jnp.full((1, 4), jnp.nan))
    assert bool(jnp.isnan(alone).all())


def test_bins_are_for_tables():
    with pytest.raises(ConfigError, match=r"data\.preprocess\.bins: is for tables"):
        preprocess.make_recipe({"bins": 4}, InputSpec((8, 8, 1), "uint8"), "digits")
