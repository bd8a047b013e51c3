from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data.feed import batch_examples
from jdlopt.data.sampling import balanced_order, epoch_order, make_order, weighted_order
from jdlopt.errors import DataError

seeds = st.integers(0, 2**32 - 1)
labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)
weights = st.lists(st.floats(0, 10), min_size=1, max_size=60).filter(any).map(np.array)


@given(labels, seeds, st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_every_class_has_the_same_share_of_an_epoch(labels, seed, epoch):
    order = balanced_order(seed, epoch, labels)
    assert order.dtype == np.int32 and order.shape == labels.shape
    _, shares = np.unique(labels[order], return_counts=True)
    assert len(shares) == len(np.unique(labels))
    assert shares.max() - shares.min() <= 1


@given(labels, seeds)
@settings(max_examples=40, deadline=None)
def test_a_class_shows_all_of_its_examples_before_one_repeats(labels, seed):
    seen = np.zeros(len(labels), int)
    for epoch in range(6):
        seen += np.bincount(balanced_order(seed, epoch, labels), minlength=len(labels))
        for label in np.unique(labels):
            times = seen[labels == label]
            assert times.max() - times.min() <= 1


@given(weights, seeds, st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_an_example_comes_as_often_as_its_weight_says(weights, seed, epoch):
    order = weighted_order(seed, epoch, weights)
    assert order.dtype == np.int32 and order.shape == weights.shape
    times = np.bincount(order, minlength=len(weights))
    expected = len(weights) * weights / weights.sum()
    assert (times >= np.floor(expected - 1e-9)).all()
    assert (times <= np.ceil(expected + 1e-9)).all()
    assert not times[weights == 0].any()


def test_the_mean_over_epochs_is_in_proportion_to_the_weights():
    weights = np.random.default_rng(0).exponential(size=30)
    epochs = 800
    times = sum(np.bincount(weighted_order(0, e, weights), minlength=30) for e in range(epochs))
    expected = 30 * weights / weights.sum()
    # a count is one of two neighbouring numbers: a variance of at most 1/4
    np.testing.assert_allclose(times / epochs, expected, atol=5 * 0.5 / np.sqrt(epochs))


@pytest.mark.parametrize("order", [balanced_order, weighted_order])
def test_an_order_is_a_function_of_seed_and_epoch(order):
    values = np.random.default_rng(0).integers(1, 4, 100)
    np.testing.assert_array_equal(order(1, 2, values), order(1, 2, values))
    for other in [(0, 2), (1, 3)]:
        assert not np.array_equal(order(1, 2, values), order(*other, values))


def test_the_order_stays_what_it_was():
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    assert balanced_order(7, 1, labels).tolist() == [8, 0, 0, 2, 7, 9, 6, 4, 9, 9]
    assert weighted_order(7, 1, labels + 0.5).tolist() == [1, 7, 6, 6, 9, 9, 8, 2, 3, 9]


def test_positions_of_equal_classes_are_in_random_order():
    labels = np.repeat([0, 1], 500)
    first = labels[balanced_order(0, 0, labels)][:500]
    assert 200 < first.sum() < 300


def test_the_default_is_the_order_of_the_feed():
    np.testing.assert_array_equal(make_order("uniform")(3, 4, 20), epoch_order(3, 4, 20))


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
def test_an_order_travels_and_feeds_batches(sampling):
    values = np.arange(1, 41) % 4
    order = make_order(sampling, labels=values, weights=values.astype(float))
    epoch = order(5, 0, 40)
    assert not epoch.flags.writeable
    copy = pickle.loads(pickle.dumps(order))
    np.testing.assert_array_equal(copy(5, 0, 40), epoch)
    batches = batch_examples(5, 0, 10, 40, steps=4, order=order)
    np.testing.assert_array_equal(batches.reshape(-1), epoch)
    with pytest.raises(ValueError, match="for 40 examples, not 39"):
        order(5, 0, 39)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sampling": "balanced"}, "these targets are no classes"),
        ({"sampling": "balanced", "labels": np.ones(3)}, "these targets are no classes"),
        ({"sampling": "weighted"}, "needs data.weight"),
        ({"sampling": "weighted", "weights": np.zeros(3)}, "all training examples are 0"),
        ({"sampling": "weighted", "weights": np.array([1, np.nan])}, "example 1 .* is nan"),
        ({"sampling": "weighted", "weights": np.array([1, -2.0])}, "example 1 .* is -2"),
        ({"sampling": "balance"}, "'balance' is unknown; there are balanced, uniform, weighted"),
    ],
)
def test_orders_that_can_not_be_made(keys, message):
    with pytest.raises(DataError, match=message):
        make_order(**keys)
