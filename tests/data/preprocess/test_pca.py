from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from jdlopt.data.preprocess import pca
from jdlopt.errors import ConfigError, DataError

apply = jax.jit(pca.apply)


def table(seed, rows=80):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)).astype(
        np.float32
    )


@pytest.mark.parametrize("components", [1, 3, 6, 0.5, 0.9])
@pytest.mark.parametrize("whiten", [False, True])
def test_equals_scikit_learn(components, whiten):
    train, other = table(0), table(1)
    state = pca.fit(train, components=components, whiten=whiten)
    reference = PCA(n_components=components, whiten=whiten).fit(train.astype(np.float64))
    for values in (train, other):
        result = apply(state, values)
        np.testing.assert_allclose(result, reference.transform(values), rtol=1e-4, atol=1e-5)
    if whiten:
        projected = np.asarray(apply(state, train))
        count = projected.shape[1]
        np.testing.assert_allclose(
            np.cov(projected.T).reshape(count, count), np.eye(count), atol=1e-4
        )


def test_a_share_keeps_as_few_components_as_will_do():
    train = table(2)
    spectrum = np.linalg.eigvalsh(np.cov(train.T.astype(np.float64)))[::-1]
    shares = np.cumsum(spectrum) / spectrum.sum()
    for share in (0.3, 0.8, 0.99):
        kept = pca.fit(train, components=share)["components"]
        assert len(kept) == int(np.argmax(shares >= share)) + 1
        np.testing.assert_allclose(kept @ kept.T, np.eye(len(kept)), atol=1e-5)


def test_whitening_does_not_blow_up_what_has_no_variance():
    train = table(3)
    train[:, 5] = train[:, 4]
    result = np.asarray(apply(pca.fit(train, components=6, whiten=True), train))
    assert np.abs(result[:, 5]).max() < 1e-4
    np.testing.assert_allclose(result[:, :5].std(axis=0, ddof=1), np.ones(5), rtol=1e-4)


def test_stacked_states_project_as_each_alone():
    states = [pca.fit(table(seed), components=2, whiten=True) for seed in (4, 5)]
    batch = table(6, rows=5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.vmap(pca.apply, (0, None))(stacked, batch)
    for index, state in enumerate(states):
        eager = pca.apply(state, batch)
        np.testing.assert_allclose(together[index], eager, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(apply(state, batch), eager, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(apply({}, batch), batch)


def test_what_can_not_work_is_told():
    train = table(7)
    for wrong in (0, -1, 0.0, 1.0, 1.5):
        with pytest.raises(ConfigError, match=r"data\.preprocess\.pca"):
            pca.fit(train, components=wrong)
    with pytest.raises(DataError, match="7 components of 80 training rows and 6 columns"):
        pca.fit(train, components=7)
    with pytest.raises(DataError, match="all 6 columns are constant"):
        pca.fit(np.ones((9, 6)), components=0.9)
    train[2, 3] = np.nan
    with pytest.raises(DataError, match="missing values in 1 of 80"):
        pca.fit(train, components=2)


def test_constant_columns_are_found():
    train = np.array([[1, 2, np.nan, 4, np.nan], [1, 3, np.nan, 4, 5], [1, 2, np.nan, np.nan, 6]])
    assert pca.constant_columns(train).tolist() == [True, False, True, True, False]
