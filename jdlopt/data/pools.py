"""Pools: examples that are stored together, whole in memory or read one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Num

from jdlopt.data import named


class Arrays(NamedTuple):
    """A whole split: uint8, float32 or int32 inputs; int32 classes or labels, or float32 values.

    Inputs are one array [examples, …], or a dict of named arrays.
    """

    inputs: Any
    targets: Num[np.ndarray, "examples *target"]


@runtime_checkable
class Pool(Protocol):
    """Examples that are stored together; a split is a pool, or some indices of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, np.generic]: ...

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them, and opens no other."""
        ...

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets of the examples at the indices, or of all; decodes no input."""
        ...


@dataclass
class ArrayPool:
    """Examples that lie in arrays, loaded when the first of them is asked for."""

    size: int
    load: Callable[[], Arrays]
    _arrays: Arrays | None = None

    @property
    def arrays(self) -> Arrays:
        """All examples, in memory."""
        if self._arrays is None:
            self._arrays = self.load()
        return self._arrays

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, np.generic]:
        return named.rows(self.arrays.inputs, index), self.arrays.targets[index]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        if indices is None:
            return self.arrays
        return Arrays(named.rows(self.arrays.inputs, indices), self.arrays.targets[indices])

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets of the examples at the indices, or of all."""
        return self.read(indices).targets


@runtime_checkable
class OfFiles(Protocol):
    """A pool each of whose examples is a file."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in the order of the examples."""
        ...


@runtime_checkable
class OfPools(Protocol):
    """A pool whose examples have several inputs, each of a pool of its own."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools by the names of the inputs, in the order of the examples."""
        ...


@dataclass(frozen=True)
class Records(Sequence[tuple[Any, np.generic]]):
    """A split as a random-access sequence of ``(input, target)``, for streaming."""

    pool: Pool
    indices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pool) if self.indices is None else len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.pool[int(index if self.indices is None else self.indices[index])]
