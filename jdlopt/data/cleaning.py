"""Cleaning: training rows and columns that a config leaves out, before anything is fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdlopt.data.dataset import Dataset
from jdlopt.data.named import by_name, rows
from jdlopt.data.notes import MOST_TOLD, Note
from jdlopt.data.pools import Arrays, Pool
from jdlopt.data.preprocess import (
    PreprocessFields,
    Recipe,
    as_fields,
    make_recipes,
    missing,
    outliers,
    pca,
)
from jdlopt.errors import DataError

DROPS = "data.preprocess.{}='drop' says so."


@dataclasses.dataclass(frozen=True)
class ColumnPool:
    """A table, or the input ``name`` of several, of which some columns are left out."""

    pool: Pool
    columns: np.ndarray
    name: str | None = None

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> tuple[object, np.generic]:
        inputs, target = self.pool[index]
        return self._left(inputs), target

    def _left(self, inputs: Any) -> object:
        if self.name is None:
            return inputs[..., self.columns]
        return {**inputs, self.name: inputs[self.name][..., self.columns]}

    def read(self, indices: np.ndarray | None) -> Arrays:
        """Returns the examples at the indices, or all of them."""
        inputs, targets = self.pool.read(indices)
        return Arrays(self._left(inputs), targets)

    def targets(self, indices: np.ndarray | None) -> np.ndarray:
        """Returns the targets of the examples at the indices, or of all."""
        return self.pool.targets(indices)


def clean(dataset: Dataset, section: PreprocessFields | Mapping[str, object]) -> Dataset:
    """Returns a dataset without the training rows and the columns that a section leaves out.

    Rows are left out of the training split alone: ``missing='drop'``, ``duplicates='drop'`` and
    ``outlier_action='drop'``, in this order. Columns (``constant_columns='drop'``) are those that
    have one value in the training rows, and they are left out everywhere.

    Args:
      dataset: an opened dataset.
      section: ``data.preprocess``.

    Returns:
      The dataset; its notes say how many of each were left out.

    Raises:
      DataError: nothing would be left.
    """
    options = as_fields(section)
    drops_rows = (
        options.missing == "drop"
        or options.duplicates == "drop"
        or (options.outliers != "none" and options.outlier_action == "drop")
    )
    if not (drops_rows or options.constant_columns == "drop"):
        return dataset
    spec = dataset.spec
    recipes = by_name(make_recipes(options, spec.inputs, spec.name))
    tables = [name for name, one in recipes.items() if one.kind == "table"]
    if not tables:
        return dataset
    given, targets = dataset.read("train")
    inputs = by_name(given)
    kept = np.arange(len(targets))
    notes: list[Note] = []

    def leave_out(what: str, unwanted: np.ndarray, remedy: str) -> None:
        nonlocal kept
        if unwanted.any():
            notes.append(Note("left out", what, int(unwanted.sum()), "training rows", (), remedy))
        kept = kept[~unwanted]
        if not len(kept):
            raise DataError(
                f"data.preprocess: {dataset.spec.source}: leaving out {what} leaves no training "
                f"row of {len(targets)}."
            )

    if options.missing == "drop":
        whole = [missing.complete_rows(inputs[name][kept]) for name in tables]
        leave_out("rows with missing values", ~np.all(whole, axis=0), DROPS.format("missing"))
    if options.duplicates == "drop":  # equal in all inputs
        copies = outliers.duplicate_rows(rows(given, kept), targets[kept])
        leave_out("duplicate rows", copies, DROPS.format("duplicates"))
    if options.outliers != "none" and options.outlier_action == "drop":
        marks = [_outliers(inputs[name][kept], recipes[name]) for name in tables]
        leave_out("rows with outliers", np.any(marks, axis=0), DROPS.format("outlier_action"))
    if drops_rows:
        dataset = _with_rows(dataset, kept)
    for name in tables if options.constant_columns == "drop" else ():
        constant = pca.constant_columns(inputs[name][kept])
        if constant.all():
            raise DataError(
                f"data.preprocess: {dataset.spec.source}: every column is constant in the training "
                "split; there is nothing to learn from."
            )
        if constant.any():
            names = spec.named[name].feature_names or tuple(map(str, range(len(constant))))
            places = tuple(names[column] for column in np.flatnonzero(constant)[:MOST_TOLD])
            remedy = DROPS.format("constant_columns")
            count = int(constant.sum())
            notes.append(Note("left out", "constant columns", count, "columns", places, remedy))
            dataset = _with_columns(dataset, name, np.flatnonzero(~constant))
    return dataset.noting(notes)


def _outliers(table: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Returns which rows of a table hold an outlier."""
    options, values = recipe.fields, table.astype(np.float64)
    if options.outliers == "isolation_forest" and options.missing not in ("none", "drop"):
        filled = missing.fit(
            values,
            method=options.missing,
            fill_value=options.fill_value,
            neighbours=options.neighbours,
            categorical=recipe.categorical,
            names=recipe.names or None,
        )
        import jax.numpy as jnp

        values = np.asarray(missing.apply(filled, jnp.asarray(values)), np.float64)
    return outliers.mark(
        values,
        method=options.outliers,
        threshold=options.outlier_threshold,
        contamination=options.contamination,
        categorical=recipe.categorical,
    )


def _with_rows(dataset: Dataset, kept: np.ndarray) -> Dataset:
    """The dataset with some of its training rows."""
    pool, indices = dataset.parts["train"]
    chosen = kept if indices is None else indices[kept]
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(dataset.spec, sizes={**dataset.sizes, "train": len(kept)}),
        parts={**dataset.parts, "train": (pool, chosen)},
        weights=None if dataset.weights is None else dataset.weights[kept],
    )


def _with_columns(dataset: Dataset, name: str, columns: np.ndarray) -> Dataset:
    """The dataset with some of the columns of its table."""
    several = isinstance(dataset.spec.inputs, Mapping)
    table = dataset.spec.named[name]
    names = table.feature_names
    kept = None if names is None else tuple(names[index] for index in columns)
    narrow = dataclasses.replace(
        table,
        feature_names=kept,
        shape=(len(columns),),
        offsets=tuple(table.offsets[column] for column in columns) if table.offsets else (),
        categories={one: found for one, found in table.categories.items() if one in (kept or ())},
    )
    inputs = {**dataset.spec.named, name: narrow} if several else narrow
    which = name if several else None
    return dataclasses.replace(
        dataset,
        spec=dataclasses.replace(dataset.spec, inputs=inputs),
        pools={split: ColumnPool(pool, columns, which) for split, pool in dataset.pools.items()},
    )
