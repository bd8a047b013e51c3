"""The data order as a function: the global batch at a step depends on (seed, step) alone.

Examples come as one endless stream, a fresh order of the split an epoch, cut into batches; so a
batch may hold the end of one epoch and the start of the next. By default an epoch is a permutation:
every example is seen once.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int, Int32

from jdlopt.data import named
from jdlopt.data.dataset import Dataset
from jdlopt.data.pools import Arrays, Records
from jdlopt.data.sampling import epoch_order
from jdlopt.errors import DataError

IN_MEMORY_BYTES = 1 << 30
"""A split up to this size stays in device memory; a larger one is streamed."""

PART_BYTES = 1 << 28
"""Bytes of a part when a split that doesn't fit memory is gone through."""

READ_AHEAD = 8
"""Batches that threads read before they are asked for."""

PER_WORKER = 2
"""Batches that each worker process keeps ready before they are asked for."""

SHARED_BYTES = 1 << 20
"""An array of so many bytes comes from a worker in shared memory, a smaller one through a pipe:
below, opening the memory takes longer than copying what is in it."""

TO_DEVICE = "jdlopt: to the device"
"""What a profiler's trace calls the copying of a batch to the device."""

Batch = dict[str, Any]
"""``inputs`` (one array, or a dict of named ones), ``targets``, and in evaluation ``weights``, an
example a row."""

Order = Callable[[int, int, int], Int32[np.ndarray, " size"]]
"""``(seed, epoch, size) → examples``: the ``size`` examples of an epoch, in order, each below
``size``. A pure function of its arguments; it pickles, where processes read."""


def parts(dataset: Dataset, split: str) -> Iterator[Arrays]:
    """Yields a split in order: whole if it fits memory, else a part of it at a time."""
    nbytes, size = dataset.nbytes(split), dataset.sizes[split]
    if fits(nbytes):
        yield dataset.read(split)
        return
    records, most = dataset.records(split), max(1, PART_BYTES * size // nbytes)
    size = len(records)  # asking for it may have left damaged examples out
    for first in range(0, size, most):
        yield read_examples(records, np.arange(first, min(first + most, size)))


def fits(nbytes: int) -> bool:
    """Returns whether a split of so many bytes is kept in device memory."""
    return nbytes <= IN_MEMORY_BYTES


# --- the order ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _kept_epoch(order: Order, seed: int, epoch: int, size: int) -> Int32[np.ndarray, " size"]:
    examples = np.asarray(order(seed, epoch, size), np.int32)
    examples.setflags(write=False)
    return examples


_ONE_AT_A_TIME = threading.Lock()  # all threads come to a new epoch at once: one works it out


def examples_at(
    seed: int, positions: Int[np.ndarray, "..."], size: int, order: Order = epoch_order
) -> Int32[np.ndarray, "..."]:
    """Returns which examples stand at given positions of the endless stream, any shape."""
    epochs, offsets = np.divmod(np.asarray(positions, np.int64), size)
    examples = np.empty(epochs.shape, np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        with _ONE_AT_A_TIME:
            ordered = _kept_epoch(order, seed, int(epoch), size)
        examples[chosen] = ordered[offsets[chosen]]
    return examples


def batch_examples(
    seed: int,
    step: int,
    batch_size: int,
    size: int,
    steps: int = 1,
    order: Order = epoch_order,
) -> Int32[np.ndarray, "steps batch"]:
    """Returns the examples in the global batches of ``steps`` steps from ``step`` on.

    Example:
      >>> batch_examples(seed=0, step=3, batch_size=4, size=10, steps=2).shape
      (2, 4)
    """
    positions = np.arange(step * batch_size, (step + steps) * batch_size, dtype=np.int64)
    return examples_at(seed, positions, size, order).reshape(steps, batch_size)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Returns the steps after which each example has been seen about once, at least 1."""
    return max(1, round(size / batch_size))


# --- reading ahead --------------------------------------------------------------------------------


def read_examples(
    records: Sequence[tuple[object, object]], examples: Int[np.ndarray, " n"]
) -> Arrays:
    """Returns some examples of a split, read together where its pool can do that.

    Args:
      records: a split as `Dataset.records` gives it, or any sequence of ``(input, target)``.
      examples: which of them, in any order; one may come twice.
    """
    if isinstance(records, Records):
        stored = examples if records.indices is None else records.indices[examples]
        return records.pool.read(np.asarray(stored))
    inputs, targets = zip(*(records[int(example)] for example in examples), strict=True)
    return Arrays(named.stacked(inputs), np.array(targets))


def stream(
    records: Sequence[tuple[object, object]],
    *,
    seed: int,
    batch_size: int,
    first_step: int,
    rows: Int[np.ndarray, " local"] | None = None,
    order: Order = epoch_order,
    workers: int = 0,
    threads: int = 8,
) -> Generator[Batch, None, None]:
    """Yields the batches from ``first_step`` on, read by Grain ahead of their use.

    The batch at a step is the same whatever reads it. Reading ends when the generator is closed or
    nobody holds it any more.

    Args:
      records: random access to ``(input, target)``; where processes read, it pickles.
      seed: the run's seed; with the step it decides the order.
      batch_size: examples in a global batch.
      first_step: where to start; a resumed run passes its step.
      rows: the rows of each global batch that this process reads; all by default.
      order: the order within an epoch.
      workers: processes that read; with 0, threads of this one do. Decoding that is written in
        Python keeps one core busy however many threads there are, and can slow the step's own.
      threads: reading threads, where there are no workers.

    Raises:
      DataError: an example can't be read, or a worker process ended by itself.
    """
    rows = np.arange(batch_size) if rows is None else rows
    read = functools.partial(_batch, records, seed, batch_size, rows, order)
    return _read_ahead(read, first_step, np.iinfo(np.int64).max // 2, workers, threads)


def _batch(
    records: Sequence[tuple[object, object]],
    seed: int,
    batch_size: int,
    rows: np.ndarray,
    order: Order,
    step: int,
) -> Batch:
    chosen = examples_at(seed, int(step) * batch_size + rows, len(records), order)
    inputs, targets = read_examples(records, chosen)
    return {"inputs": inputs, "targets": targets}


def _read_ahead(
    read: Callable[[int], Batch], first: int, last: int, workers: int, threads: int
) -> Generator[Batch, None, None]:
    """Yields ``read(number)`` for the numbers from first to last, called before it is asked for.

    A number is a whole batch: what reading costs beside each record is paid once a batch.
    """
    import grain  # takes a second, which data in memory need not wait for

    numbers = grain.MapDataset.range(first, last).map(read)
    if workers:
        _give_grain_its_flags()
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=PER_WORKER)
        # no threads within a worker: the other workers are what reads beside it
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        batches = numbers.to_iter_dataset(inline).mp_prefetch(options, _start_worker)
        shared = grain.experimental.DatasetOptions(min_shm_size=SHARED_BYTES)
        batches = grain.experimental.WithOptionsIterDataset(batches, shared)
    else:
        most = min(threads, READ_AHEAD)
        ahead = grain.ReadOptions(num_threads=most, prefetch_buffer_size=READ_AHEAD)
        batches = numbers.to_iter_dataset(ahead)
    iterator = iter(batches)
    try:
        with _signals_kept_from_children() if workers else contextlib.nullcontext():
            batch = next(iterator, None)  # starts the workers
        while batch is not None:
            if workers:  # out of shared memory, which the device might otherwise go on holding
                batch = jax.tree.map(np.array, batch)
            yield batch
            batch = next(iterator, None)
    except RuntimeError as error:
        ended = _worker_ended(error)
        if ended is None:
            raise
        raise ended from error
    finally:
        iterator.close()


# --- worker processes -----------------------------------------------------------------------------


@contextlib.contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Has what is started meanwhile, by this thread or one that it starts, never see a Ctrl-C.

    A terminal sends it to the workers too, a job scheduler SIGTERM as well; but the run that they
    read for decides when to end, after it has saved. Until a worker can say so itself, it goes by
    the signal mask that it inherits.
    """
    resource_tracker.ensure_running()  # when it starts, it takes signals off the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_STOPPING = (signal.SIGINT, signal.SIGTERM)


def _give_grain_its_flags() -> None:
    """Lets Grain read its absl flags, at their defaults, in a program that has not parsed any."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        for name in flags.FLAGS:
            if name.startswith("grain_"):
                flags.FLAGS[name].present = True


def _start_worker(index: int, count: int) -> None:
    """Prepares a process that reads: off the accelerators, deaf to Ctrl-C, gone with its parent."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # for a pool's own use of jax, if it makes any
    jax.config.update("jax_platforms", "cpu")
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns as well when the parent was killed and could tell nobody
        os._exit(1)


ENDINGS = {
    "-9": "it was killed, as the system does when memory runs out",
    "-7": "shared memory (/dev/shm) has no room for the batches",
    "1": "what it said stands above; a script that reads with workers must guard what it runs by "
    "`if __name__ == '__main__':`",
}
"""What the exit code of a worker that ended by itself usually means."""


def _worker_ended(error: RuntimeError) -> DataError | None:
    """What Grain says of a worker that ended by itself, in words; None if it says another thing."""
    found = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    if found is None:
        return None
    code = found[1]
    meaning = f" ({ENDINGS[code]})" if code in ENDINGS else ""
    return DataError(
        f"data.workers: a process that read data ended with exit code {code}{meaning}. Set "
        "data.workers to fewer, or to 0, which reads with threads."
    )


# --- on to the device -----------------------------------------------------------------------------


def to_device(batch: Batch, sharding: NamedSharding, batch_size: int) -> dict[str, Any]:
    """Returns this process's rows of a batch as one global array each."""
    with jax.profiler.TraceAnnotation(TO_DEVICE):
        return jax.tree.map(
            lambda values: jax.make_array_from_process_local_data(
                sharding, np.ascontiguousarray(values), (batch_size, *values.shape[1:])
            ),
            batch,
        )


def prefetched(
    batches: Generator[Batch, None, None],
    sharding: NamedSharding,
    batch_size: int,
    ahead: int = 2,
) -> Generator[dict[str, Any], None, None]:
    """Yields batches that were handed to the device before they are asked for.

    Closing it closes ``batches``.
    """
    waiting: collections.deque[dict[str, object]] = collections.deque()
    with contextlib.closing(batches):
        for batch in batches:
            waiting.append(to_device(batch, sharding, batch_size))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting


# --- evaluation -----------------------------------------------------------------------------------


def _with_padding(inputs: named.Inputs, targets: np.ndarray, real: np.ndarray) -> Batch:
    return {"inputs": inputs, "targets": targets, "weights": real.astype(np.float32)}


def padded(
    inputs: named.Inputs, targets: np.ndarray, batch_size: int, rows: np.ndarray
) -> Iterator[Batch]:
    """Yields a split in order, batches of one size; padding repeats an example with weight 0."""
    size = len(targets)
    for first in range(0, size, batch_size):
        positions = first + rows
        examples = np.minimum(positions, size - 1)
        yield _with_padding(named.rows(inputs, examples), targets[examples], positions < size)


def padded_stream(
    records: Sequence[tuple[object, object]],
    batch_size: int,
    rows: np.ndarray,
    *,
    workers: int = 0,
    threads: int = 8,
) -> Generator[Batch, None, None]:
    """Yields what `padded` yields, read from records that don't fit memory, as `stream` reads."""
    read = functools.partial(_padded_batch, records, batch_size, rows)
    return _read_ahead(read, 0, -(-len(records) // batch_size), workers, threads)


def _padded_batch(
    records: Sequence[tuple[object, object]], batch_size: int, rows: np.ndarray, number: int
) -> Batch:
    positions, size = int(number) * batch_size + rows, len(records)
    inputs, targets = read_examples(records, np.minimum(positions, size - 1))
    return _with_padding(inputs, targets, positions < size)
