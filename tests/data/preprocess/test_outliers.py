from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from jdlopt.data.preprocess import outliers
from jdlopt.errors import ConfigError, DataError

apply = jax.jit(outliers.apply)
CODES = np.array([False, False, False, True])


def table(seed, rows=200, missing=0.1):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 4)) * [1, 100, 0.01, 1]
    values[:5, 0] = [9, -9, 20, -20, 7]
    values[5:9, 1] = [1e4, -1e4, 2e3, -2e3]
    values[rng.random(values.shape) < missing] = np.nan
    values[:, 3] = rng.choice([1, 1, 1, 1, 1, 1, 1, 1, 9], rows)  # a rare category is no outlier
    return values.astype(np.float32)


def bounds(method, values, threshold):
    """The bounds by their definitions, column by column."""
    pairs = []
    for column in values.T.astype(np.float64):
        known = np.sort(column[~np.isnan(column)])
        if method == "zscore":
            mean = known.sum() / len(known)
            spread = threshold * np.sqrt(((known - mean) ** 2).sum() / len(known))
            pairs.append((mean - spread, mean + spread))
        else:
            positions = np.array([0.25, 0.75]) * (len(known) - 1)
            lower, upper = np.interp(positions, np.arange(len(known)), known)
            spread = threshold * (upper - lower)
            pairs.append((lower - spread, upper + spread))
    return np.array(pairs).T


@pytest.mark.parametrize(
    ("method", "threshold"), [("zscore", None), ("zscore", 2.0), ("iqr", None), ("iqr", 3.0)]
)
def test_bounds_are_learnt_in_training_and_clip_everywhere(method, threshold):
    train, other = table(0), table(1)
    state = outliers.fit(
        train, method=method, action="clip", threshold=threshold, categorical=CODES
    )
    low, high = bounds(method, train[:, :3], threshold or {"zscore": 3.0, "iqr": 1.5}[method])
    np.testing.assert_allclose(state["clip"]["low"][:3], low, rtol=1e-5)
    for values in (train, other):
        clipped = np.asarray(apply(state, values))
        expected = np.where(np.isnan(values[:, :3]), np.nan, np.clip(values[:, :3], low, high))
        np.testing.assert_allclose(clipped[:, :3], expected, rtol=1e-5)
        np.testing.assert_array_equal(clipped[:, 3], values[:, 3])
        outside = (values[:, :3] < low) | (values[:, :3] > high)
        cells = outliers.outlying_cells(state["clip"], values)
        np.testing.assert_array_equal(cells[:, :3], outside)
        assert not cells[:, 3].any()
    assert np.asarray(apply(state, train) != train)[:9, :2].any()  # something was clipped


@pytest.mark.parametrize("method", ["zscore", "iqr"])
def test_marks_are_the_rows_with_an_outlying_value(method):
    train, other = table(2), table(3)
    low, high = bounds(method, train[:, :3], {"zscore": 3.0, "iqr": 1.5}[method])
    state = outliers.fit(train, method=method, action="mark", categorical=CODES)
    for values in (train, other):
        outside = ((values[:, :3] < low) | (values[:, :3] > high)).any(axis=1)
        marked = np.asarray(apply(state, values))
        np.testing.assert_array_equal(marked[:, :4], values)
        np.testing.assert_array_equal(marked[:, 4], outside.astype(np.float32))
        assert 0 < outside.sum() < len(values)
    rows = outliers.mark(train, method=method, categorical=CODES)
    np.testing.assert_array_equal(rows, np.asarray(apply(state, train))[:, 4] == 1)


@pytest.mark.parametrize("method", ["zscore", "iqr"])
def test_a_column_without_spread_has_no_outliers(method):
    train = np.zeros((100, 4), np.float32)
    train[:, 1] = 0.1  # its standard deviation rounds to something above 0
    train[:, 2] = np.nan
    train[:10, 3] = np.arange(10)
    state = outliers.fit(train, method=method, action="clip")
    np.testing.assert_array_equal(apply(state, train)[:, :3], train[:, :3])
    if method == "iqr":  # most values are 0, so that the quartiles tell no spread
        np.testing.assert_array_equal(apply(state, train)[:, 3], train[:, 3])
        assert not outliers.mark(train, method=method).any()
    assert json.loads(json.dumps(state["clip"]["low"].tolist(), allow_nan=False))


@pytest.mark.parametrize("options", [{}, {"threshold": 0.55}, {"contamination": 0.05}])
def test_forest_as_scikit_learn(options):
    train, other = table(4, rows=600, missing=0.0), table(5, missing=0.0)
    reference = IsolationForest(
        random_state=3, contamination=options.get("contamination", "auto")
    ).fit(train.astype(np.float64))
    limit = -reference.offset_ if "contamination" in options else options.get("threshold", 0.6)
    state = outliers.fit(train, method="isolation_forest", action="mark", seed=3, **options)
    for values in (train, other):
        score = -reference.score_samples(values.astype(np.float64))
        clear = np.abs(score - limit) > 1e-6  # float32 may round a tie either way
        marked = np.asarray(apply(state, values))[:, 4] == 1
        np.testing.assert_array_equal(marked[clear], (score > limit)[clear])
        assert clear.sum() >= len(values) - 2
        assert marked.any() and not marked.all()
    rows = outliers.mark(train, method="isolation_forest", seed=3, **options)
    np.testing.assert_array_equal(rows, np.asarray(apply(state, train))[:, 4] == 1)


def test_forest_does_not_look_at_codes():
    train = table(6, missing=0.0)
    rows = [
        outliers.mark(train * [1, 1, 1, factor], method="isolation_forest", categorical=CODES)
        for factor in (1.0, -100.0)
    ]
    np.testing.assert_array_equal(*rows)
    assert not outliers.mark(np.ones((50, 2)), method="isolation_forest").any()


def test_drop_leaves_other_splits_alone():
    train = table(7)
    assert outliers.fit(train, method="zscore", action="drop") == {}
    assert outliers.fit(train, method="none", action="clip") == {}
    assert not outliers.mark(train, method="none").any()
    np.testing.assert_array_equal(apply({}, train), train)
    every = np.array([[0.0, 1.0], [2.0, -1.0]])
    with pytest.raises(DataError, match="none of 2 training rows"):
        outliers.fit(every, method="zscore", action="drop", threshold=0.5)


def test_what_can_not_work_is_told():
    with pytest.raises(ConfigError, match="no bounds to clip to"):
        outliers.fit(table(8), method="isolation_forest", action="clip")
    with pytest.raises(ConfigError, match="Did you mean 'zscore'"):
        outliers.check("z-score", "clip")
    with pytest.raises(ConfigError, match="Did you mean 'drop'"):
        outliers.check("iqr", "dropp")
    with pytest.raises(DataError, match="needs complete rows"):
        outliers.mark(table(8), method="isolation_forest")


@pytest.mark.parametrize("method", ["iqr", "isolation_forest"])
def test_stacked_and_saved_states_mark_as_each_alone(method):
    states = [
        outliers.fit(table(seed, missing=0.0), method=method, action="mark") for seed in (9, 10)
    ]
    batch = table(11, missing=0.0)
    eager = [np.asarray(outliers.apply(state, batch)) for state in states]
    assert not np.array_equal(*eager)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.vmap(outliers.apply, (0, None))(stacked, batch)
    for index, state in enumerate(states):
        saved = jax.tree.map(lambda leaf: np.array(leaf.tolist(), np.float32), state)
        np.testing.assert_array_equal(together[index], eager[index])
        np.testing.assert_array_equal(apply(state, batch), eager[index])
        np.testing.assert_array_equal(apply(saved, batch), eager[index])


def test_duplicates_are_all_but_the_first():
    values = np.array([[1, 2], [1, 3], [1, 2], [1, 2], [np.nan, 0], [np.nan, -0.0]], np.float32)
    targets = np.array([0, 0, 1, 0, 2, 2], np.int32)
    marks = outliers.duplicate_rows(values, targets)
    assert marks.tolist() == [False, False, False, True, False, True]


def test_duplicates_among_many_rows():
    rng = np.random.default_rng(12)
    values = rng.integers(0, 3, (100_000, 30)).astype(np.float32)
    values[1::2, 10:] = 0
    values[rng.random(values.shape) < 0.02] = np.nan
    targets = rng.integers(0, 2, len(values))
    table = np.column_stack([np.where(np.isnan(values), -1, values), targets])
    _, first = np.unique(table, axis=0, return_index=True)
    expected = np.ones(len(values), bool)
    expected[first] = False
    np.testing.assert_array_equal(outliers.duplicate_rows(values, targets), expected)
    assert expected.sum() > 1000


def found(column, targets):
    leaks = outliers.leaking_columns(np.asarray(column, np.float64)[:, None], targets, ["x"])
    assert [leak.column for leak in leaks] in ([], ["x"])
    return leaks[0].why if leaks else None


def test_leaks_are_found_and_explained():
    rng = np.random.default_rng(13)
    classes = rng.integers(0, 3, 100)
    binary = rng.integers(0, 2, 100)
    values = rng.normal(size=100)
    assert found(classes, classes) == "equals the target"
    holes = np.where(np.arange(100) % 5, classes, np.nan)
    assert found(holes, classes) == "equals the target wherever it has a value"
    renamed = np.array([7.0, -1.0, 4.0])[classes]
    assert found(renamed, classes).startswith("each of its 3 values goes with one target")
    assert found(values, values) == "equals the target"
    assert found(3 - 2 * values + 1e-3 * rng.normal(size=100), values) == (
        "its correlation with the target is -1.0000"
    )
    lacks = np.where(binary, values, np.nan)
    assert found(lacks, binary) == "lacks values exactly where the target is one of two"
    one_value = np.where(binary, 5.0, np.nan)
    assert found(one_value, binary).startswith("each of its 2 values")


def test_honest_columns_are_no_leaks():
    rng = np.random.default_rng(14)
    values = rng.normal(size=100)
    binary = rng.integers(0, 2, 100)
    assert found(values, rng.normal(size=100)) is None
    # all values differ, as do all targets: a one-to-one map, and no leak
    assert found(rng.permutation(100), values) is None
    assert found(values + 0.2 * rng.normal(size=100), values) is None
    assert found(values + 10 * binary, binary) is None  # a good feature, with values of its own
    wrong = binary.copy()
    wrong[3] = 1 - wrong[3]
    assert found(wrong, binary) is None
    assert found(np.full(100, np.nan), binary) is None
    assert found(np.ones(100), binary) is None
    assert found(binary, np.ones(100)) is None
    assert found([1.0, 2.0, 4.0], np.array([1.0, 2.0, 4.5])) is None  # too few rows
    few = np.full(100, np.nan)
    few[:3] = binary[:3]
    assert found(few, binary) is None


def test_leaks_among_many_columns_keep_their_names():
    rng = np.random.default_rng(15)
    targets = rng.integers(0, 2, 500)
    values = rng.normal(size=(500, 4)).astype(np.float32)
    values[:, 2] = targets + 1
    leaks = outliers.leaking_columns(values, targets, ["a", "b", "refund", "d"])
    assert [leak.column for leak in leaks] == ["refund"]
