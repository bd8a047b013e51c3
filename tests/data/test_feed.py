"""Rule 3: the global batch at a step is a function of (seed, step)."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.data import feed

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**31)


@given(seeds, st.integers(0, 50), sizes)
def test_an_epoch_is_a_permutation(seed, epoch, size):
    assert sorted(feed.epoch_order(seed, epoch, size)) == list(range(size))


@given(seeds, sizes, st.integers(1, 20), st.integers(1, 5))
def test_every_example_is_seen_once_an_epoch(seed, size, batch_size, epochs):
    steps = -(-epochs * size // batch_size)
    seen = feed.batch_examples(seed, 0, batch_size, size, steps).ravel()[: epochs * size]
    assert (np.bincount(seen, minlength=size) == epochs).all()


@given(seeds, sizes, st.integers(1, 20), st.integers(0, 30), st.integers(1, 10))
def test_a_batch_does_not_depend_on_where_reading_began(seed, size, batch_size, step, steps):
    together = feed.batch_examples(seed, step, batch_size, size, steps)
    alone = [feed.batch_examples(seed, step + i, batch_size, size)[0] for i in range(steps)]
    np.testing.assert_array_equal(together, alone)


def test_orders_differ_between_seeds_and_epochs():
    orders = [tuple(feed.epoch_order(seed, epoch, 50)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_the_order_is_the_documented_one():
    # a published order must not change with a version of numpy: runs would not resume
    np.testing.assert_array_equal(feed.epoch_order(0, 0, 8), [0, 2, 1, 5, 4, 3, 6, 7])


def records(size):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(3,)).astype(np.float32), np.int32(i % 4)) for i in range(size)]


def test_streaming_gives_the_batches_of_memory():
    data = records(23)
    inputs = np.stack([x for x, _ in data])
    targets = np.array([y for _, y in data])
    for first in (0, 7):
        read = feed.stream(data, seed=5, batch_size=6, first_step=first, threads=2)
        for offset, batch in enumerate(itertools.islice(read, 8)):
            chosen = feed.batch_examples(5, first + offset, 6, 23)[0]
            np.testing.assert_array_equal(batch["inputs"], inputs[chosen])
            np.testing.assert_array_equal(batch["targets"], targets[chosen])
            assert batch["inputs"].dtype == np.float32


def test_processes_read_parts_of_the_same_batch():
    data = records(17)
    whole = next(feed.stream(data, seed=1, batch_size=4, first_step=3))
    parts = [
        next(feed.stream(data, seed=1, batch_size=4, first_step=3, rows=np.array(rows)))
        for rows in ([0, 1], [2, 3])
    ]
    joined = np.concatenate([part["inputs"] for part in parts])
    np.testing.assert_array_equal(joined, whole["inputs"])


@given(st.integers(1, 30), st.integers(1, 8))
def test_padding_covers_each_example_once(size, batch_size):
    values = np.arange(size)
    batches = list(feed.padded(values, values, batch_size, np.arange(batch_size)))
    kept = np.concatenate([batch["inputs"][batch["weights"] > 0] for batch in batches])
    np.testing.assert_array_equal(kept, values)
    assert {len(batch["inputs"]) for batch in batches} == {batch_size}


def test_streamed_padding_is_the_same():
    data = records(11)
    inputs = np.stack([x for x, _ in data])
    targets = np.array([y for _, y in data])
    rows = np.arange(4)
    memory = list(feed.padded(inputs, targets, 4, rows))
    streamed = list(feed.padded_stream(data, 4, rows, threads=2))
    assert len(memory) == len(streamed) == 3
    for one, other in zip(memory, streamed, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
