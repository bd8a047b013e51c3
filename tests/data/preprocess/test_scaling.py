from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from jdlopt.data.preprocess import scale
from jdlopt.errors import ConfigError

METHODS = [name for name in scale.METHODS if name != "none"]
apply = jax.jit(scale.apply)


def log(values):
    return np.where(values < 0, -np.log1p(-np.minimum(values, 0)), np.log1p(np.maximum(values, 0)))


def expected(method, train, values):
    """What scikit-learn makes of values, fitted on the training rows."""
    train, values = train.astype(np.float64), values.astype(np.float64)
    if method == "log":
        train, values = log(train), log(values)
    if method == "robust_clipped":
        low, lower, median, upper, high = np.nanpercentile(train, (0, 25, 50, 75, 100), axis=0)
        scaled = (values - median) * np.where(upper > lower, 1 / (upper - lower), 2 / (high - low))
        return scaled / np.sqrt(1 + (scaled / 3) ** 2)
    normal = QuantileTransformer(
        n_quantiles=max(10, len(train) // 30), output_distribution="normal", subsample=None
    )
    scalers = {"minmax": MinMaxScaler(), "robust": RobustScaler(), "quantile": normal}
    return scalers.get(method, StandardScaler()).fit(train).transform(values)


def table(seed, rows=60, missing=0.15):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 4)) * [1, 10, 0.01, 1] + [0, 5, 0.1, 0]
    values[:, 3] = np.exp(3 * values[:, 3])  # a long tail
    values[rng.random(values.shape) < missing] = np.nan
    return values.astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_equals_scikit_learn_and_leaves_missing_values(method):
    train, other = table(0), table(1)
    state = scale.fit(train, method=method)
    for values in (train, other):
        result = np.asarray(apply(state, values))
        np.testing.assert_array_equal(np.isnan(result), np.isnan(values))
        np.testing.assert_allclose(
            result, expected(method, train, values), rtol=1e-5, atol=1e-5, equal_nan=True
        )


@pytest.mark.parametrize("method", METHODS)
def test_channels_are_scaled_over_all_positions(method):
    signals = np.random.default_rng(2).gamma(2.0, size=(12, 7, 3)).astype(np.float32)
    result = apply(scale.fit(signals, method=method), signals)
    flat = signals.reshape(-1, 3)
    np.testing.assert_allclose(
        np.asarray(result).reshape(-1, 3), expected(method, flat, flat), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("without", [slice(0, 10), slice(25, 45), slice(50, 60)])
@pytest.mark.parametrize("method", METHODS)
def test_batches_give_the_same_state(method, without):
    train = table(3)
    train[without, 1] = np.nan  # a batch may lack all values of a column
    whole = scale.fit(train, method=method)
    parts = scale.fit_batches(np.split(train, 6), method=method)
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-6, atol=1e-7)


def test_robust_looks_at_a_uniform_seeded_sample_of_many(monkeypatch):
    monkeypatch.setattr(scale, "SAMPLE_VALUES", 2000)
    train = np.random.default_rng(4).normal(size=(20_000, 2)).astype(np.float32)
    train[:, 1] = np.arange(20_000)  # sorted rows, so that a first part would be no sample
    first, again, recut, other = (
        scale.fit(train, method="robust"),
        scale.fit(train, method="robust"),
        scale.fit_batches(np.array_split(train, 37), method="robust"),
        scale.fit(train, method="robust", seed=1),
    )
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], recut[name])
        assert name == "rest" or not np.array_equal(first[name], other[name])
    # 1,000 rows: the median's standard error is about 1.6 % of the range, the quartiles' 1.4 %
    assert abs(first["shift"][1] / 20_000 - 0.5) < 0.08
    assert abs(first["scale"][1] / 20_000 - 0.5) < 0.08


@pytest.mark.parametrize("method", METHODS)
def test_features_without_spread_or_values_are_scaled_by_one(method):
    train = np.zeros((8, 4), np.float32)
    train[:, 0] = 3.0
    train[:, 1] = np.nan
    train[::2, 2] = 1e-42  # less than float32 can divide by
    train[:, 3] = np.arange(8)
    state = scale.fit(train, method=method)
    assert state["scale"][:2].tolist() == [1.0, 1.0]
    result = np.asarray(apply(state, train))
    np.testing.assert_array_equal(result[:, 0], np.zeros(8))
    assert np.isnan(result[:, 1]).all()
    assert np.isfinite(result[:, 2:]).all()
    assert np.isfinite(np.asarray(apply(state, np.ones((1, 4), np.float32)))).all()


@pytest.mark.parametrize("method", METHODS)
def test_codes_of_categories_stay(method):
    train = table(5, missing=0.0)
    train[:, 1] = np.arange(60) % 4
    mask = np.array([False, True, False, False])
    result = np.asarray(apply(scale.fit(train, method=method, categorical=mask), train))
    np.testing.assert_array_equal(result[:, 1], train[:, 1])
    others = [0, 2, 3]
    np.testing.assert_allclose(
        result[:, others],
        expected(method, train[:, others], train[:, others]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_none_fits_nothing_and_an_unknown_method_names_the_nearest():
    assert scale.fit(table(6), method="none") == {}
    assert apply({}, np.array([0, 255], np.uint8)).tolist() == [0.0, 1.0]
    with pytest.raises(ConfigError, match="Did you mean 'robust'"):
        scale.fit(table(6), method="robst")


def test_quantiles_of_many_rows_ties_and_what_lies_beyond():
    rng = np.random.default_rng(10)
    train = np.column_stack([rng.gamma(0.5, size=3000), rng.integers(0, 4, 3000)])
    other = np.column_stack([rng.gamma(1.0, size=500), rng.integers(-2, 7, 500)])
    train[::7, 1] = 1.0  # one value has several quantiles
    state = scale.fit(train, method="quantile")
    found = np.asarray(apply(state, other.astype(np.float32)))
    wanted = expected("quantile", train, other)
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_robust_clipped_of_equal_quartiles_takes_the_range():
    train = np.zeros((20, 1), np.float32)
    train[0] = 8.0
    found = apply(
        scale.fit(train, method="robust_clipped"), np.array([[0.0], [8.0], [1e30]], "float32")
    )
    np.testing.assert_allclose(found[:, 0], [0.0, 2 / np.sqrt(1 + 4 / 9), 3.0], rtol=1e-6)


@pytest.mark.parametrize("method", ["log", "robust", "robust_clipped", "quantile"])
def test_stacked_states_scale_as_each_alone(method):
    states = [scale.fit(table(seed), method=method) for seed in (7, 8)]
    batch = table(9, rows=5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.vmap(scale.apply, (0, None))(stacked, batch)
    for index, state in enumerate(states):
        np.testing.assert_allclose(together[index], scale.apply(state, batch), rtol=1e-6)
        np.testing.assert_allclose(apply(state, batch), scale.apply(state, batch), rtol=1e-6)
