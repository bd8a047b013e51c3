"""Which rows of a population lie on which device: the axis of its trials, sharded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int32

AXIS = "trials"
TRIALS, WHOLE = P(AXIS), P()
"""How an argument lies on the devices: a block of its rows on each, or all of it on each."""
Tree = TypeVar("Tree")


def default_devices() -> tuple[jax.Device, ...]:
    """Returns the devices of a population: all local accelerators, or one CPU device.

    A study on CPUs has a worker process for each core, which does the same as several devices in
    one process would.
    """
    devices = jax.local_devices()
    return tuple(devices[:1] if devices[0].platform == "cpu" else devices)


@dataclass(frozen=True)
class Layout:
    """Blocks of a population's rows, one a device, all of one size.

    With one device, arrays and functions are left as they are.

    Attributes:
      devices: at least one.
    """

    devices: tuple[jax.Device, ...]

    @property
    def mesh(self) -> Mesh:
        """The devices along the axis of the trials."""
        return Mesh(np.array(self.devices), (AXIS,))

    def width(self, rows: int) -> int:
        """Returns the least number of rows, as many or more, that the devices share evenly."""
        return -(-rows // len(self.devices)) * len(self.devices)

    def deal(self, trials: Sequence[int], width: int) -> list[int | None]:
        """Deals trials out to the devices in turn; returns the trial of each row, None of padding.

        Example:
          >>> cpu = jax.local_devices(backend="cpu")[0]
          >>> Layout((cpu, cpu)).deal([5, 6, 7], width=6)
          [5, 7, None, 6, None, None]
        """
        rows: list[int | None] = [None] * width
        count, size = len(self.devices), width // len(self.devices)
        for turn, trial in enumerate(trials):
            rows[turn % count * size + turn // count] = trial
        return rows

    def turns(
        self, active: Sequence[int], width: int
    ) -> tuple[Int32[np.ndarray, " width"], Int32[np.ndarray, " devices"]]:
        """Returns the order in which each device takes its active rows, and how many they are.

        Args:
          active: rows of the population.
          width: of it.

        Returns:
          Rows counted within their device's block, a block of them for each device; and numbers.
        """
        size = width // len(self.devices)
        order = np.zeros((len(self.devices), size), np.int32)
        counts = np.zeros(len(self.devices), np.int32)
        for row in active:
            device, place = divmod(row, size)
            order[device, counts[device]] = place
            counts[device] += 1
        return order.reshape(-1), counts

    def split(self, tree: Tree) -> Tree:
        """Places arrays with a leading axis of rows, a block on each device."""
        return self._placed(tree, TRIALS)

    def replicate(self, tree: Tree) -> Tree:
        """Places arrays on every device."""
        return self._placed(tree, WHOLE)

    def _placed(self, tree: Tree, spec: P) -> Tree:
        if len(self.devices) == 1:
            return tree
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def spread(self, function: Callable[..., Any], *specs: P) -> Callable[..., Any]:
        """Returns a function that each device runs on its own rows, without communication.

        Args:
          function: takes arrays with a leading axis of rows, or whole ones; returns the former.
          *specs: how each argument lies on the devices; results lie as `TRIALS`.
        """
        if len(self.devices) == 1:
            return function
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=TRIALS, check_vma=False
        )
