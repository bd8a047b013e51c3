"""Which examples of a source's pools each split is made of, as the data section says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized

import numpy as np

from jdlopt.data.coding import Coding
from jdlopt.data.fields import BOTH, DataFields
from jdlopt.data.split import SPLITS, Indices, split_indices
from jdlopt.data.stratification import binned
from jdlopt.errors import DataError

PLACING = ("group", "time", "split_by")
"""The keys of the data section that say which split an example is in."""
BESIDE = ("group", "time", "weight", "split_by")
"""The keys that name a column which is no feature, beside the target."""


def make_parts(
    pools: Mapping[str, Sized],
    fields: DataFields,
    coding: Coding,
    targets: Callable[[], np.ndarray],
    beside: Mapping[str, np.ndarray] | None = None,
) -> dict[str, tuple[str, np.ndarray | None]]:
    """Returns which pool, and which of its examples, each split is made of.

    A split that the source has is taken as it is; the others are taken out of ``train``.

    Args:
      pools: the source's own splits, ``train`` among them.
      fields: the data section: fractions, folds, ``split_seed`` and ``stratify``.
      coding: how targets are coded.
      targets: gives the encoded targets of the ``train`` pool.
      beside: what each of `BESIDE` is of each example of the ``train`` pool, where the data section
        names it.
    """
    where = fields.source
    parts: dict[str, tuple[str, np.ndarray | None]] = {name: (name, None) for name in pools}
    for name, pool in pools.items():
        if len(pool) == 0:
            raise DataError(f"{where}: split {name!r} is empty.")
    folds = fields.folds
    if folds is not None and "validation" in pools:
        raise DataError(
            f"data.folds: {where} has a validation split of its own, so there is nothing to fold. "
            "Leave data.folds out."
        )
    if fields.train_on == BOTH and "validation" in pools:
        raise DataError(
            f"data.train_on={BOTH!r}: {where} has a validation split of its own, and only one that "
            "is taken out of the training examples can be given back to them. Add its examples to "
            "the training ones in the source, or leave data.train_on out."
        )
    beside = beside or {}
    for key in BESIDE:
        if getattr(fields, key) is not None and key not in beside:
            raise DataError(
                f"data.{key}: names a column or feature, and {where} has none. Leave it out."
            )
    if all(split in pools for split in SPLITS):
        for key in PLACING:
            if key in beside:
                raise DataError(
                    f"data.{key}: {where} has three splits of its own, so there is nothing to "
                    f"split. Leave data.{key} out."
                )
        return parts
    keys = beside.get("split_by")
    test_fraction = None if "test" in pools else fields.test_fraction
    least = (1 if test_fraction is None else 2) + (folds - 1 if folds else 1)
    indices = split_indices(
        len(pools["train"]),
        labels=_strata(fields, coding, targets, least),
        test_fraction=test_fraction,
        validation_fraction=None if "validation" in pools else fields.validation_fraction,
        seed=fields.split_seed,
        where=where,
        class_names=coding.class_names,
        fold=None if folds is None else (folds, fields.fold),
        groups=None if keys is not None else beside.get("group"),
        times=beside.get("time"),
        keys=None if keys is None else keys.tolist(),
    )
    if fields.train_on == BOTH:
        indices["train"] = np.sort(np.concatenate([indices["train"], indices["validation"]]))
    return parts | {split: ("train", index) for split, index in indices.items()}


def fit_rows(
    parts: Mapping[str, tuple[str, np.ndarray | None]], fields: DataFields, size: int
) -> Indices:
    """Returns the examples of the ``train`` pool that decide how inputs are coded.

    They are the training split; but with ``data.folds`` they are all that are not test, so that the
    inputs of all folds are coded alike, and one program serves them.

    Args:
      parts: what `make_parts` returned.
      fields: the data section.
      size: the number of examples in the ``train`` pool.
    """
    splits = ("train",) if fields.folds is None else ("train", "validation")
    rows = [parts[split][1] for split in splits]
    chosen = [np.arange(size) if some is None else some for some in rows]
    return np.sort(np.concatenate(chosen))


def _strata(
    fields: DataFields, coding: Coding, targets: Callable[[], np.ndarray], least: int
) -> np.ndarray | None:
    """Returns what a split is stratified by: classes, labels or bins of a value; None: nothing."""
    bins = fields.stratify_bins
    if not fields.stratify:
        return None
    if coding.task in ("classification", "multilabel"):
        return targets()
    if bins is None or coding.task != "regression":
        return None
    if coding.shape:
        raise DataError(
            "data.stratify_bins: bins the one number that a regression predicts; "
            f"{fields.source} has {coding.shape[0]}. Leave it out."
        )
    return binned(targets(), bins, least)
