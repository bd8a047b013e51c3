"""Dynamic batching: requests that wait for the model at the same time are computed together."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Arrays = Mapping[str, np.ndarray]
"""By name, an example a row."""
Run = Callable[[Arrays], dict[str, np.ndarray]]


class Failed(Exception):
    """The model can't be run on the inputs of one request."""


class _Waiting:
    """A request that waits for the model."""

    def __init__(self, arrays: Arrays, now: float, loop: asyncio.AbstractEventLoop):
        self.arrays, self.since = arrays, now
        self.rows = len(next(iter(arrays.values())))
        self.found: asyncio.Future[dict[str, np.ndarray]] = loop.create_future()


class Batcher:
    """Runs a model for requests that come one by one, several of them together.

    While the model computes, requests gather; the next batch takes what is there. So an idle model
    answers at once, and a busy one has larger batches.

    Args:
      run: computes any number of examples; called in one thread, a batch after the other.
      max_batch: examples that are computed together; a larger request is computed alone.
      max_wait: seconds that a request waits for others to join it, from when it came.

    Attributes:
      in_loop: whether batches are computed in the event loop itself, for a model so fast that
        handing them to a thread takes longer.
    """

    def __init__(self, run: Run, max_batch: int, max_wait: float):
        self.run, self.max_batch, self.max_wait = run, max_batch, max_wait
        self.in_loop = False
        self.batches = 0
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to answer; called in the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Answers what is waiting, and ends."""
        while self._waiting:
            await asyncio.sleep(0.005)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def __call__(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Returns what the model says of a request's examples.

        Raises:
          Failed: it can't be run on them.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(arrays, loop.time(), loop)
        self._waiting.append(waiting)
        self._changed.set()
        return await waiting.found

    async def _work(self) -> None:
        while True:
            await self._gathered()
            batch = self._taken()
            if batch:
                self.batches += 1
                await self._computed(batch)

    async def _gathered(self) -> None:
        """Returns once there is a batch: full, or its oldest request has waited long enough."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if self._waiting:
                left = self._waiting[0].since + self.max_wait - loop.time()
                if left <= 0 or sum(one.rows for one in self._waiting) >= self.max_batch:
                    return
                try:
                    await asyncio.wait_for(self._changed.wait(), left)
                except TimeoutError:
                    return
            else:
                await self._changed.wait()

    def _taken(self) -> list[_Waiting]:
        """Returns the next requests that fit a batch; those that nobody waits for are dropped."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self.max_batch):
            one = self._waiting.popleft()
            if not one.found.done():
                batch.append(one)
                rows += one.rows
        return batch

    async def _computed(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.in_loop and batch[0].rows <= self.max_batch:
                found = self._run_together(batch)
            else:
                found = await loop.run_in_executor(self._thread, self._run_together, batch)
        except Exception as error:
            if len(batch) > 1:  # one of them spoils it, and the others are answered all the same
                for one in batch:
                    await self._computed([one])
            elif not batch[0].found.done():
                batch[0].found.set_exception(Failed(str(error)))
            return
        first = 0
        for one in batch:
            if not one.found.done():
                rows = slice(first, first + one.rows)
                one.found.set_result({name: values[rows] for name, values in found.items()})
            first += one.rows

    def _run_together(self, batch: list[_Waiting]) -> dict[str, np.ndarray]:
        if len(batch) == 1:
            return self.run(batch[0].arrays)
        names = batch[0].arrays
        joined = {name: np.concatenate([one.arrays[name] for one in batch]) for name in names}
        return self.run(joined)
