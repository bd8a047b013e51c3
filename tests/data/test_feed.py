"""Rule 3: the global batch at a step is a function of (seed, step)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt import mesh as meshes
from jdlopt.data import feed, sampling
from jdlopt.data.dataset import Dataset
from jdlopt.data.pools import ArrayPool, Arrays, Records
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import DataError

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**31)


@given(seeds, st.integers(0, 50), sizes)
def test_an_epoch_is_a_permutation(seed, epoch, size):
    assert sorted(sampling.epoch_order(seed, epoch, size)) == list(range(size))


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
    orders = [
        tuple(sampling.epoch_order(seed, epoch, 50)) for seed in range(4) for epoch in range(4)
    ]
    assert len(set(orders)) == 16


def test_the_order_is_the_documented_one():
    # a published order must not change with a version of numpy: runs would not resume
    np.testing.assert_array_equal(sampling.epoch_order(0, 0, 8), [0, 2, 1, 5, 4, 3, 6, 7])


def backwards(seed, epoch, size):
    """An order of one's own: the examples from the last to the first, from another one an epoch."""
    return (seed + epoch - np.arange(size)) % size


def repeating(seed, epoch, size):
    """One that shows some examples twice and others not at all, as weighted sampling does."""
    return np.random.default_rng([seed, epoch]).integers(0, size, size)


@given(
    seeds, sizes, st.integers(1, 20), st.integers(0, 30), st.sampled_from([backwards, repeating])
)
def test_a_batch_follows_the_order_given(seed, size, batch_size, step, order):
    epochs = range((step + 2) * batch_size // size + 1)
    everything = np.concatenate([order(seed, epoch, size) for epoch in epochs])
    expected = everything[step * batch_size :][: 2 * batch_size].reshape(2, batch_size)
    found = feed.batch_examples(seed, step, batch_size, size, 2, order=order)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        feed.examples_at(seed, step * batch_size + np.arange(batch_size), size, order), expected[0]
    )


def test_an_epoch_is_worked_out_once():
    asked = []

    def order(seed, epoch, size):
        asked.append(epoch)
        return backwards(seed, epoch, size)

    data = records(20)
    read = feed.stream(data, seed=0, batch_size=5, first_step=0, order=order, threads=4)
    for _ in itertools.islice(read, 8):  # two epochs, and some of what is read ahead
        pass
    read.close()
    assert sorted(asked) == list(range(len(asked))) and len(asked) >= 2


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


@pytest.mark.parametrize(("workers", "parts"), [(0, ([0, 1], [2, 3], [1, 3])), (2, ([1, 3],))])
def test_processes_read_parts_of_the_same_batch(workers, parts):
    data = records(17)
    whole = feed.batch_examples(1, 3, 4, 17, order=backwards)[0]
    for rows in parts:
        read = feed.stream(
            data, seed=1, batch_size=4, first_step=3, rows=np.array(rows), order=backwards,
            workers=workers,
        )  # fmt: skip
        found = next(read)
        read.close()
        expected = np.stack([data[example][0] for example in whole[rows]])
        np.testing.assert_array_equal(found["inputs"], expected)


def in_shared_memory(size):
    """The shared memory of a size that is there, as Python names it."""
    found = []
    for path in Path("/dev/shm").glob("psm_*"):
        with contextlib.suppress(FileNotFoundError):
            found += [path] if path.stat().st_size == size else []
    return found


def test_large_batches_come_from_workers_whole_and_leave_no_shared_memory():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 600, 600), np.uint8)
    pool = ArrayPool(12, functools.partial(Arrays, images, np.arange(12, dtype=np.int32)))
    read = feed.stream(Records(pool, None), seed=1, batch_size=4, first_step=0, workers=1)
    found = list(itertools.islice(read, 5))
    shared = in_shared_memory(4 * 600 * 600)
    read.close()
    for step, batch in enumerate(found):
        chosen = feed.batch_examples(1, step, 4, 12)[0]
        np.testing.assert_array_equal(batch["inputs"], images[chosen])
        np.testing.assert_array_equal(batch["targets"], chosen)
    assert shared, "what this test is about did not happen"
    deadline = time.monotonic() + 20
    while in_shared_memory(4 * 600 * 600):  # Grain unlinks it in a thread
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_of_a_pool_are_read_together_and_no_others():
    asked = []

    class Pool(ArrayPool):
        def read(self, indices):
            asked.append(indices)
            return super().read(indices)

    values = np.arange(30, dtype=np.float32)[:, None]
    pool = Pool(30, lambda: Arrays(values, np.arange(30, dtype=np.int32)))
    chosen = np.arange(29, 9, -1)  # the split is a part of the pool, in an order of its own
    read = feed.stream(
        Records(pool, chosen), seed=3, batch_size=6, first_step=0, rows=np.array([4, 1]), threads=1
    )
    for step, batch in enumerate(itertools.islice(read, 5)):
        expected = chosen[feed.batch_examples(3, step, 6, 20)[0][[4, 1]]]
        np.testing.assert_array_equal(asked[step], expected)
        np.testing.assert_array_equal(batch["targets"], expected)
        np.testing.assert_array_equal(batch["inputs"][:, 0], expected)
    read.close()


def test_a_split_larger_than_memory_is_gone_through_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    whole = Arrays(rng.normal(size=(50, 3)).astype(np.float32), np.arange(50, dtype=np.int32))
    asked = []

    class Pool(ArrayPool):
        def read(self, indices):
            asked.append(len(indices))
            return super().read(indices)

    sizes = {"train": 50}
    spec = DataSpec("made", "made", "regression", InputSpec((3,), "float32"), sizes)
    dataset = Dataset(spec, {"train": Pool(50, lambda: whole)}, {"train": ("train", None)})
    monkeypatch.setattr(feed, "IN_MEMORY_BYTES", 50 * 16 - 1)
    monkeypatch.setattr(feed, "PART_BYTES", 20 * 16)
    found = list(feed.parts(dataset, "train"))
    assert asked == [20, 20, 10]
    np.testing.assert_array_equal(np.concatenate([part.inputs for part in found]), whole.inputs)
    np.testing.assert_array_equal(np.concatenate([part.targets for part in found]), whole.targets)


def test_what_reading_says_is_passed_on():
    class Damaged(list):
        def __getitem__(self, index):
            if index == 7:
                raise DataError("example 7: can't be read")
            return super().__getitem__(index)

    read = feed.stream(Damaged(records(9)), seed=0, batch_size=3, first_step=0)
    with pytest.raises(DataError, match="example 7"):
        list(itertools.islice(read, 3))


def test_what_was_handed_to_the_device_is_the_stream():
    data = records(23)
    sharding = meshes.batch_sharding(meshes.make_mesh(meshes.MeshFields(data=4, fsdp=1)))
    read = feed.stream(data, seed=2, batch_size=8, first_step=1)
    batches = feed.prefetched(read, sharding, 8)
    for step, batch in enumerate(itertools.islice(batches, 5), start=1):
        chosen = feed.batch_examples(2, step, 8, 23)[0]
        assert isinstance(batch["inputs"], jax.Array) and batch["inputs"].sharding == sharding
        np.testing.assert_array_equal(batch["inputs"], np.stack([data[i][0] for i in chosen]))
        np.testing.assert_array_equal(batch["targets"], [data[i][1] for i in chosen])
    batches.close()
    assert next(read, None) is None  # it was closed with what took from it


def test_what_is_ahead_comes_to_its_end():
    data = records(11)
    sharding = meshes.batch_sharding(meshes.make_mesh(meshes.MeshFields(data=1, fsdp=1)))
    for ahead in (0, 1, 9):
        read = feed.padded_stream(data, 4, np.arange(4))
        weights = [
            np.asarray(batch["weights"]) for batch in feed.prefetched(read, sharding, 4, ahead)
        ]
        np.testing.assert_array_equal(np.concatenate(weights), [1] * 11 + [0])


def test_a_closed_stream_leaves_no_thread():
    before = set(threading.enumerate())
    read = feed.stream(records(20), seed=0, batch_size=4, first_step=0)
    next(read)
    started = set(threading.enumerate()) - before
    assert started
    read.close()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


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
    for workers in (0, 2):
        streamed = list(feed.padded_stream(data, 4, rows, threads=2, workers=workers))
        assert len(memory) == len(streamed) == 3
        for one, other in zip(memory, streamed, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
