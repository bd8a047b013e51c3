from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer

from jdlopt.data.preprocess import missing
from jdlopt.errors import ConfigError, DataError

STRATEGIES = ("mean", "median", "most_frequent")
apply = jax.jit(missing.apply)


def table(seed, rows=40, columns=5, share=0.2, dtype=np.float32):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * [1, 10, 1, 0.1, 3]
    values[rng.random(values.shape) < share] = np.nan
    values[0] = 1.5  # every column has a value
    return values.astype(dtype)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    values=arrays(
        np.float32,
        (9, 3),
        elements=st.one_of(st.integers(-3, 3).map(float), st.just(np.nan)),
    )
)
@settings(max_examples=40, deadline=None)
def test_fills_as_scikit_learn_does(strategy, values):
    values[0] = [1.0, -2.0, 0.5]
    state = missing.fit(values, method=strategy)
    expected = SimpleImputer(strategy=strategy).fit_transform(values.astype(np.float64))
    np.testing.assert_allclose(apply(state, values), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [*STRATEGIES, "maximum", "knn"])
def test_learns_from_the_training_rows_alone(method):
    train, other = table(0), table(1, rows=12, share=0.5)
    state = missing.fit(train, method=method)
    before = jax.tree.map(np.copy, state)
    filled = np.asarray(apply(state, other))
    jax.tree.map(np.testing.assert_array_equal, state, before)
    known = ~np.isnan(other)
    np.testing.assert_array_equal(filled[known], other[known])
    if method == "knn":
        expected = KNNImputer().fit(train.astype(np.float64)).transform(other)
    elif method == "maximum":
        expected = np.where(known, other, np.nanmax(train, axis=0))
    else:
        expected = SimpleImputer(strategy=method).fit(train.astype(np.float64)).transform(other)
    np.testing.assert_allclose(filled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("neighbours", "share"), [(1, 0.1), (4, 0.4), (100, 0.7)])
def test_nearest_rows_as_scikit_learn(neighbours, share):
    rng = np.random.default_rng(neighbours)
    # unrounded values have no ties, far from 0 they would lose digits in a product
    train = (rng.normal(size=(60, 6)) + 1000.0).astype(np.float32)
    train[rng.random(train.shape) < share] = np.nan
    train[0] = 1000.0
    batch = (rng.normal(size=(33, 6)) + 1000.0).astype(np.float32)
    batch[rng.random(batch.shape) < share] = np.nan
    batch[5] = np.nan  # no distance is known: the columns' means
    state = missing.fit(train, method="knn", neighbours=neighbours)
    expected = KNNImputer(n_neighbors=neighbours).fit(train.astype(np.float64)).transform(batch)
    np.testing.assert_allclose(apply(state, batch), expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(apply(state, batch[5:6])[0], np.nanmean(train, axis=0), rtol=1e-6)


def test_rows_of_nan_among_the_donors_change_nothing():
    state = missing.fit(table(2), method="knn")
    padded = state | {"donors": np.vstack([state["donors"], np.full((7, 5), np.nan, "float32")])}
    batch = table(3, share=0.4)
    np.testing.assert_array_equal(apply(padded, batch), apply(state, batch))


def test_knn_keeps_a_seeded_sample_of_many_rows():
    train = table(4, rows=500)
    states = [missing.fit(train, method="knn", seed=seed, most_donors=50) for seed in (0, 0, 1)]
    assert states[0]["donors"].shape == (50, 5)
    np.testing.assert_array_equal(states[0]["donors"], states[1]["donors"])
    assert not np.array_equal(states[0]["donors"], states[2]["donors"], equal_nan=True)
    np.testing.assert_allclose(states[0]["fill"], np.nanmean(train, axis=0), rtol=1e-5)
    some = {row.tobytes() for row in train}
    assert all(row.tobytes() in some for row in states[0]["donors"])


def test_indicators_as_scikit_learn():
    train = table(5)
    train[:, 2] = 1.0  # complete in training, so it has no indicator
    batch = table(6, rows=10, share=0.5)
    state = missing.fit(train, method="median", missing_indicator=True)
    flags = MissingIndicator(features="missing-only", error_on_new=False).fit(train)
    filled = np.asarray(apply(state, batch))
    np.testing.assert_array_equal(filled[:, 5:], flags.transform(batch).astype(np.float32))
    assert not np.isnan(filled).any()
    assert missing.output_names(state, list("abcde")) == (
        *"abcde",
        *(f"{name} is missing" for name in "abde"),
    )


def test_none_leaves_what_is_missing():
    batch = table(7)
    assert missing.fit(batch, method="none") == {}
    np.testing.assert_array_equal(apply({}, batch), batch)
    state = missing.fit(batch, method="none", missing_indicator=True)
    np.testing.assert_array_equal(apply(state, batch)[:, :5], batch)


def test_drop_keeps_complete_rows_and_fills_other_splits_with_their_mean():
    train = table(8)
    complete = train[[not any(np.isnan(row)) for row in train]]
    np.testing.assert_array_equal(train[missing.complete_rows(train)], complete)
    for rows in (train, complete):
        state = missing.fit(rows, method="drop")
        filled = apply(state, np.full((1, 5), np.nan, np.float32))
        np.testing.assert_allclose(filled[0], complete.mean(axis=0, dtype=np.float64), rtol=1e-5)
    with pytest.raises(DataError, match="none of 2 training rows"):
        missing.fit(np.array([[1.0, np.nan], [np.nan, 1.0]]), method="drop")
    with pytest.raises(ConfigError, match="missing_indicator"):
        missing.fit(train, method="drop", missing_indicator=True)


@pytest.mark.parametrize("method", ["mean", "knn", "maximum", "drop"])
def test_categories_take_the_most_frequent_code(method):
    rng = np.random.default_rng(9)
    train = np.stack([rng.normal(size=30), np.tile([1, 2, 2, 3, 2], 6)], axis=1)
    train[3:6, 0] = np.nan
    train[7:9, 1] = np.nan
    mask = np.array([False, True])
    state = missing.fit(train, method=method, categorical=mask)
    filled = np.asarray(apply(state, np.array([[0.5, np.nan], [np.nan, 1.0]], np.float32)))
    assert filled[0].tolist() == [0.5, 2.0]
    assert np.isfinite(filled).all()
    if method == "knn":  # codes are no distances
        numbers = KNNImputer().fit(train[:, :1]).transform([[np.nan]])
        np.testing.assert_allclose(filled[1, :1], numbers[0], rtol=1e-5)


def test_a_constant_fills_numbers_and_code_zero_fills_categories():
    mask = np.array([False, True])
    state = missing.fit(np.ones((3, 2)), method="constant", fill_value=-7.5, categorical=mask)
    assert apply(state, np.full((1, 2), np.nan, np.float32)).tolist() == [[-7.5, 0.0]]


def test_only_categories():
    codes = np.array([[1.0], [2.0], [2.0], [np.nan]])
    for method in ("mean", "knn", "maximum"):
        state = missing.fit(codes, method=method, categorical=np.array([True]))
        assert apply(state, codes.astype(np.float32))[:, 0].tolist() == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("method", [name for name in missing.METHODS if name != "none"])
def test_a_column_without_values_is_named(method):
    values = np.ones((4, 3))
    values[:, 1] = np.nan
    with pytest.raises(DataError, match=r"'income' has no value.*data\.ignore=\('income',\)"):
        missing.fit(values, method=method, names=["age", "income", "city"])
    with pytest.raises(DataError, match="number 1 has no value"):
        missing.fit(values, method=method)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'median'"):
        missing.fit(np.ones((2, 2)), method="medain")


@pytest.mark.parametrize("method", ["median", "knn"])
def test_compiled_stacked_and_saved_states_give_the_same(method):
    batch = table(10, rows=15, share=0.4)
    states = [
        missing.fit(table(seed), method=method, missing_indicator=True, neighbours=3)
        for seed in (11, 12)
    ]
    eager = [np.asarray(missing.apply(state, batch)) for state in states]
    assert not np.array_equal(*eager)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.jit(jax.vmap(missing.apply, (0, None)))(stacked, batch)
    for index, state in enumerate(states):
        lists = json.loads(json.dumps({name: leaf.tolist() for name, leaf in state.items()}))
        saved = {name: np.array(leaf, np.float32) for name, leaf in lists.items()}
        np.testing.assert_allclose(apply(state, batch), eager[index], rtol=1e-6)
        np.testing.assert_allclose(together[index], eager[index], rtol=1e-6)
        np.testing.assert_allclose(apply(saved, batch), eager[index], rtol=1e-6)


def test_gradients_pass_known_values_only():
    state = missing.fit(table(13), method="knn")
    batch = jnp.array([[1.0, jnp.nan, 2.0, 0.5, jnp.nan]])
    gradient = jax.grad(lambda values: missing.apply(state, values).sum())(batch)
    assert gradient.tolist() == [[1.0, 0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("method", ["median", "knn"])
def test_many_rows(method):
    rng = np.random.default_rng(14)
    values = rng.normal(size=(100_000, 30)).astype(np.float32)
    damaged = np.flatnonzero(rng.random(len(values)) < (1 / 3 if method == "median" else 0.02))
    values[damaged, rng.integers(0, 30, len(damaged))] = np.nan
    state = missing.fit(values, method=method, most_donors=500)
    filled = np.asarray(apply(state, values))
    assert np.isfinite(filled).all()
    known = ~np.isnan(values)
    np.testing.assert_array_equal(filled[known], values[known])
