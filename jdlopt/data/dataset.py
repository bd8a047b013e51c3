"""A dataset as three splits over pools of examples, read only when a split is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, Num

from jdlopt.data.split import split_indices
from jdlopt.errors import DataError

SPLITS = ("train", "validation", "test")


class Arrays(NamedTuple):
    """A whole split: uint8 or float32 inputs, int32 classes or float32 values to predict."""

    inputs: Num[np.ndarray, "examples *shape"]
    targets: Int[np.ndarray, " examples"] | Float[np.ndarray, " examples"]


class Pool(Protocol):
    """Examples that are stored together; a split is a pool, or some indices of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]: ...

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them, and opens no other."""
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

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.generic]:
        return self.arrays.inputs[index], self.arrays.targets[index]

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        if indices is None:
            return self.arrays
        return Arrays(self.arrays.inputs[indices], self.arrays.targets[indices])


@dataclass(frozen=True)
class Records(Sequence):
    """A split as a random-access sequence of ``(input, target)``, for streaming."""

    pool: Pool
    indices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.pool) if self.indices is None else len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.pool[int(index if self.indices is None else self.indices[index])]


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits of one source, and what a model has to know about them.

    Attributes:
      name: a short name: the dataset's, or the file's or folder's.
      source: ``data.source`` as the config has it.
      task: ``classification`` or ``regression``.
      num_classes: the number of classes; 0 for regression.
      class_names: a name for each class, in the order of the targets; empty for regression.
      feature_names: a name for each feature of a table; None for other inputs.
      input_shape: the shape of one input.
      input_dtype: ``uint8`` or ``float32``.
      target_dtype: ``int32`` (classes) or ``float32`` (values).
      sizes: examples in each of ``train``, ``validation`` and ``test``.
    """

    name: str
    source: str
    task: str
    num_classes: int
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] | None
    input_shape: tuple[int, ...]
    input_dtype: str
    target_dtype: str
    sizes: Mapping[str, int]
    allow_missing: bool = False
    pools: Mapping[str, Pool] = field(default_factory=dict, repr=False)
    parts: Mapping[str, tuple[str, np.ndarray | None]] = field(default_factory=dict, repr=False)

    def _part(self, split: str) -> tuple[Pool, np.ndarray | None]:
        if split not in self.parts:
            raise DataError(f"split {split!r} is unknown; there are {', '.join(SPLITS)}.")
        pool, indices = self.parts[split]
        return self.pools[pool], indices

    def read(self, split: str) -> Arrays:
        """Returns a whole split in memory; no example of another split is opened for it.

        Raises:
          DataError: an example can't be read, or holds a value that can't be used.
        """
        pool, indices = self._part(split)
        arrays = pool.read(indices)
        where = f"{self.source}, split {split!r}"
        _check_targets(arrays.targets, self.num_classes, where)
        if not self.allow_missing:
            check_finite(arrays.inputs, where)
        return arrays

    def records(self, split: str) -> Records:
        """Returns a split as a random-access sequence of ``(input, target)``, read one by one."""
        return Records(*self._part(split))

    def nbytes(self, split: str) -> int:
        """Returns the bytes that `read` of the split would take in memory."""
        values = math.prod(self.input_shape)
        return self.sizes[split] * (values * np.dtype(self.input_dtype).itemsize + 4)

    def meta(self) -> dict[str, Any]:
        """Returns what `read_inputs` needs later to read inputs alike, as JSON-able values."""
        return {
            "name": self.name,
            "source": self.source,
            "task": self.task,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "input_shape": list(self.input_shape),
            "input_dtype": self.input_dtype,
            "target_dtype": self.target_dtype,
            "sizes": dict(self.sizes),
        }


def make_parts(
    pools: Mapping[str, Pool],
    fields: Any,
    labels: Callable[[], np.ndarray] | None,
    where: str,
    class_names: Sequence[str] = (),
) -> dict[str, tuple[str, np.ndarray | None]]:
    """Returns which pool, and which of its examples, each split is made of.

    A split that the source has is taken as it is; the others are taken out of ``train``.

    Args:
      pools: the source's own splits, ``train`` among them.
      fields: the data section: fractions, folds, ``split_seed`` and ``stratify``.
      labels: gives the classes of the ``train`` pool; None for regression.
      where: names the source, for messages.
      class_names: names the classes, for messages.
    """
    parts: dict[str, tuple[str, np.ndarray | None]] = {name: (name, None) for name in pools}
    for name, pool in pools.items():
        if len(pool) == 0:
            raise DataError(f"{where}: split {name!r} is empty.")
    folds = getattr(fields, "folds", None)
    if folds is not None and "validation" in pools:
        raise DataError(
            f"data.folds: {where} has a validation split of its own, so there is nothing to fold. "
            "Leave data.folds out."
        )
    if all(split in pools for split in SPLITS):
        return parts
    indices = split_indices(
        len(pools["train"]),
        labels=labels() if labels is not None and fields.stratify else None,
        test_fraction=None if "test" in pools else fields.test_fraction,
        validation_fraction=None if "validation" in pools else fields.validation_fraction,
        seed=fields.split_seed,
        where=where,
        class_names=class_names,
        fold=None if folds is None else (folds, fields.fold),
    )
    return parts | {split: ("train", index) for split, index in indices.items()}


def make_dataset(
    *,
    fields: Any,
    name: str,
    coding: Any,
    feature_names: tuple[str, ...] | None,
    input_shape: tuple[int, ...],
    input_dtype: str,
    pools: Mapping[str, Pool],
    labels: Callable[[], np.ndarray],
    parts: Mapping[str, tuple[str, np.ndarray | None]] | None = None,
    allow_missing: bool = False,
) -> Dataset:
    """Returns the `Dataset` of a source's pools, after splitting what has to be split.

    Args:
      fields: the data section.
      name: the dataset's short name.
      coding: the target's `jdlopt.data.targets.Coding`.
      feature_names: a name for each feature of a table.
      input_shape: the shape of one input.
      input_dtype: ``uint8`` or ``float32``.
      pools: the source's own splits, ``train`` among them.
      labels: gives the encoded targets of the ``train`` pool.
      parts: what `make_parts` returned, where it was called already.
      allow_missing: NaN among float inputs is kept rather than refused.
    """
    classification = coding.task == "classification"
    if parts is None:
        parts = make_parts(
            pools, fields, labels if classification else None, fields.source, coding.class_names
        )
    sizes = {split: len(Records(pools[parts[split][0]], parts[split][1])) for split in SPLITS}
    return Dataset(
        name=name,
        source=fields.source,
        task=coding.task,
        num_classes=len(coding.class_names) if classification else 0,
        class_names=coding.class_names,
        feature_names=feature_names,
        input_shape=tuple(int(size) for size in input_shape),
        input_dtype=str(np.dtype(input_dtype)),
        target_dtype="int32" if classification else "float32",
        sizes=sizes,
        allow_missing=allow_missing,
        pools=pools,
        parts=parts,
    )


def check_finite(inputs: np.ndarray, where: str, what: str = "input") -> None:
    """Raises a `DataError` that names the first example holding NaN or infinity, if one does."""
    if not np.issubdtype(inputs.dtype, np.floating):
        return
    bad = ~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        kind = "NaN" if np.isnan(inputs[first]).any() else "infinity"
        raise DataError(
            f"{where}: the {what} of example {first} (counted from 0) holds {kind}, as do "
            f"{int(bad.sum()) - 1} more of {len(inputs)}. Remove these examples or fill them in."
        )


def _check_targets(targets: np.ndarray, num_classes: int, where: str) -> None:
    if not num_classes:
        check_finite(targets, where, "target")
        return
    bad = (targets < 0) | (targets >= num_classes)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{where}: the label of example {first} (counted from 0) is {targets[first]}, not in "
            f"0 to {num_classes - 1}: is this split published without labels?"
        )
