"""The data order as a function: the global batch at a step depends on (seed, step) alone.

Examples come as one endless stream, a fresh permutation of the split an epoch, cut into batches; so
a batch may hold the end of one epoch and the start of the next, and every example is seen once an
epoch.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int32

from jdlopt.data.dataset import Arrays, Dataset

IN_MEMORY_BYTES = 1 << 30
"""A split up to this size stays in device memory; a larger one is streamed."""


PART = 8192
"""Examples of a part when a split that doesn't fit memory is gone through."""


def parts(dataset: Dataset, split: str) -> Iterator[Arrays]:
    """Yields a split in order: whole if it fits memory, else some thousand examples at a time."""
    if fits(dataset.nbytes(split)):
        yield dataset.read(split)
        return
    records = dataset.records(split)
    for first in range(0, len(records), PART):
        chosen = [records[index] for index in range(first, min(first + PART, len(records)))]
        inputs, targets = zip(*chosen, strict=True)
        yield Arrays(np.stack(inputs), np.array(targets))


def fits(nbytes: int) -> bool:
    """Says whether a split of so many bytes is kept in device memory."""
    return nbytes <= IN_MEMORY_BYTES


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, size: int) -> Int32[np.ndarray, " size"]:
    """Returns the permutation of a split in one epoch.

    It sorts Philox's raw words, a stream that numpy promises to keep, so that the order outlives
    versions of numpy, as its ``permutation`` need not.
    """
    words = np.random.Philox(key=[seed, epoch]).random_raw(size)
    order = np.argsort(words, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order


def examples_at(seed: int, positions: Int32[np.ndarray, " n"], size: int) -> np.ndarray:
    """Returns which examples stand at given positions of the endless stream, any shape."""
    epochs, offsets = np.divmod(np.asarray(positions, np.int64), size)
    examples = np.empty(epochs.shape, np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        examples[chosen] = epoch_order(seed, int(epoch), size)[offsets[chosen]]
    return examples


def batch_examples(
    seed: int, step: int, batch_size: int, size: int, steps: int = 1
) -> Int32[np.ndarray, "steps batch"]:
    """Returns the examples in the global batches of ``steps`` steps from ``step`` on.

    Example:
      >>> batch_examples(seed=0, step=3, batch_size=4, size=10, steps=2).shape
      (2, 4)
    """
    positions = np.arange(step * batch_size, (step + steps) * batch_size, dtype=np.int64)
    return examples_at(seed, positions, size).reshape(steps, batch_size)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Returns the steps after which each example has been seen about once, at least 1."""
    return max(1, round(size / batch_size))


def stream(
    records: Sequence[tuple[Any, Any]],
    *,
    seed: int,
    batch_size: int,
    first_step: int,
    rows: Int32[np.ndarray, " local"] | None = None,
    threads: int = 8,
    read_ahead: int = 4,
) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields the batches from ``first_step`` on, read by Grain's threads ahead of their use.

    Args:
      records: random access to ``(input, target)``.
      seed: the run's seed; with the step it decides the order.
      batch_size: examples in a global batch.
      first_step: where to start; a resumed run passes its step.
      rows: the rows of each global batch that this process reads; all by default.
      threads: reading threads.
      read_ahead: batches read before they are asked for.
    """
    import grain  # takes half a second, which data in memory need not wait for

    size = len(records)
    rows = np.arange(batch_size) if rows is None else rows
    local = len(rows)

    def example(position: int) -> dict[str, np.ndarray]:
        step, row = divmod(int(position), local)
        chosen = examples_at(seed, np.array([step * batch_size + rows[row]]), size)
        inputs, targets = records[int(chosen[0])]
        return {"inputs": np.asarray(inputs), "targets": np.asarray(targets)}

    last = np.iinfo(np.int64).max // 2
    dataset = grain.MapDataset.range(first_step * local, last).map(example)
    batches = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=read_ahead * local)
    ).batch(local, drop_remainder=True)
    yield from batches


def to_device(
    batch: Mapping[str, np.ndarray], sharding: NamedSharding, batch_size: int
) -> dict[str, jax.Array]:
    """Returns this process's rows of a batch as one global array each."""
    return {
        name: jax.make_array_from_process_local_data(
            sharding, np.ascontiguousarray(values), (batch_size, *values.shape[1:])
        )
        for name, values in batch.items()
    }


def prefetched(
    batches: Iterator[Mapping[str, np.ndarray]],
    sharding: NamedSharding,
    batch_size: int,
    ahead: int = 2,
) -> Iterator[dict[str, jax.Array]]:
    """Yields batches that were handed to the device before they are asked for."""
    waiting: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in batches:
        waiting.append(to_device(batch, sharding, batch_size))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def _with_padding(
    inputs: np.ndarray, targets: np.ndarray, real: np.ndarray
) -> dict[str, np.ndarray]:
    return {"inputs": inputs, "targets": targets, "weights": real.astype(np.float32)}


def padded(
    inputs: np.ndarray, targets: np.ndarray, batch_size: int, rows: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Yields a split in order, batches of one size; padding repeats an example with weight 0."""
    size = len(targets)
    for first in range(0, size, batch_size):
        positions = first + rows
        examples = np.minimum(positions, size - 1)
        yield _with_padding(inputs[examples], targets[examples], positions < size)


def padded_stream(
    records: Sequence[tuple[Any, Any]], batch_size: int, rows: np.ndarray, threads: int = 8
) -> Iterator[dict[str, np.ndarray]]:
    """Yields what `padded` yields, read by Grain's threads from records that don't fit memory."""
    import grain

    size, local = len(records), len(rows)
    batches = -(-size // batch_size)

    def position_of(item: int) -> int:
        batch, row = divmod(int(item), local)
        return batch * batch_size + int(rows[row])

    def example(item: int) -> dict[str, np.ndarray]:
        position = position_of(item)
        inputs, targets = records[min(position, size - 1)]
        return _with_padding(np.asarray(inputs), np.asarray(targets), np.asarray(position < size))

    dataset = grain.MapDataset.range(batches * local).map(example)
    yield from dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * local)
    ).batch(local, drop_remainder=True)
