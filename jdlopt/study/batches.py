"""Which examples the trials of a population train on, drawn while the devices compute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32

from jdlopt.data import feed
from jdlopt.study.structure import Structure

Runs = Mapping[int, tuple[int, int | None]]
"""Row of a population → the seed and the fold of what trains there."""


class Batches:
    """Draws the examples of a population's dispatches, if asked one dispatch ahead.

    Args:
      structure: its folds and their orders.
      capacity: most steps in a dispatch.
    """

    def __init__(self, structure: Structure, capacity: int):
        self.structure, self.capacity = structure, capacity
        self.batch_size = structure.experiment.config.data.batch_size
        self._ahead: tuple[Runs, int, int, int, np.ndarray] | None = None

    def draw(
        self, runs: Runs, width: int, step: int, count: int
    ) -> Int32[np.ndarray, "width steps batch"]:
        """Returns the examples of ``count`` steps after ``step``; rows without a run have zeros.

        A run's row is a function of its seed, fold and step: what was drawn ahead for more rows or
        steps serves as well.
        """
        if self._ahead is not None:
            ready, wide, first, most, found = self._ahead
            known = all(ready.get(row) == run for row, run in runs.items())
            if known and (wide, first) == (width, step) and most >= count:
                return found
        return self._drawn(runs, width, step, count)

    def draw_ahead(self, runs: Runs, width: int, step: int, count: int) -> None:
        """Draws what the next dispatch will need if no trial ends and no row moves."""
        self._ahead = None
        if count:
            self._ahead = runs, width, step, count, self._drawn(runs, width, step, count)

    def _drawn(self, runs: Runs, width: int, step: int, count: int) -> np.ndarray:
        found = np.zeros((width, self.capacity, self.batch_size), np.int32)
        orders: dict[tuple[int, int | None], np.ndarray] = {}
        for row, run in runs.items():
            if run not in orders:
                seed, fold = run[0], self.structure.folds[run[1]]
                order = feed.batch_examples(
                    seed, step, self.batch_size, len(fold.train), count, order=fold.order
                )
                orders[run] = fold.train[order]
            found[row, :count] = orders[run]
        return found
