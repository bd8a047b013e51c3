"""Whether scaling that a run learnt of its data fits others: its weights expect values near 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Num

from jdlopt.data import feed, preprocess
from jdlopt.data.dataset import Dataset
from jdlopt.data.from_run import ANEW, State
from jdlopt.data.named import by_name
from jdlopt.data.notes import Note, Notes
from jdlopt.data.pools import Arrays
from jdlopt.data.preprocess import scale
from jdlopt.errors import DataError

FAR = 4.0
"""Half of a column's values lie so far from 0, in what was 1 of the run's own: they are far."""
CLOSE = 0.01
"""All of a column's values lie within so little: the weights can't tell them apart."""
MOST_EXAMPLES, FEWEST_EXAMPLES, MOST_VALUES = 1000, 16, 1 << 22
"""So many evenly spaced training examples are looked at, of large ones fewer."""
WHAT = (
    "scaling that lies far from these training examples: the weights know values of about 0 ± 1, "
    "as it made them of the run's own"
)


def notes_on(
    kept: State, recipe: preprocess.Recipes, dataset: Dataset, fit_on: str
) -> tuple[Note, ...]:
    """Returns what of a run's scaling does not fit the training split, counted by column.

    Args:
      kept: what of the run's preprocessing is kept.
      recipe: what is done to the data.
      dataset: the data; what was found is kept with it, and looked for once.
      fit_on: ``data.fit_on``.
    """
    key = f"far from {fit_on}: {recipe!r}"
    if key not in dataset.kept:
        dataset.kept[key] = _notes_on(kept, recipe, dataset)
    found: tuple[Note, ...] = dataset.kept[key]
    return found


def _notes_on(kept: State, recipe: preprocess.Recipes, dataset: Dataset) -> tuple[Note, ...]:
    notes, recipes = Notes(), by_name(recipe)
    states = {name: one["scale"] for name, one in kept.inputs.items() if one.get("scale")}
    try:
        examples = by_name(_some(dataset).inputs) if states else {}
        targets = dataset.targets("train") if kept.target else None
    except DataError:
        return ()  # told where it is read to train on
    for name, state in states.items():
        one = recipes[name]
        table, whose = one.kind == "table", f"{name}, " if len(recipes) > 1 else ""
        for column, words in far(one, state, examples[name]):
            called = one.names[column] if table and one.names else ""
            place = (
                f"column {called!r}" if called else f"{'column' if table else 'channel'} {column}"
            )
            notes.add("kept", WHAT, f"{whose}{place}: {words}", 1, "columns", ANEW)
    for state in kept.target.values() if targets is not None else ():
        assert targets is not None
        columns = np.asarray(targets, np.float64).reshape(len(targets), -1)
        for column, words in _far(state, columns, np.ones(columns.shape[1], bool)):
            called = (
                dataset.spec.target_names[column] if dataset.spec.target_names else "the target"
            )
            notes.add("kept", WHAT, f"{called}: {words}", 1, "columns", ANEW)
    return tuple(notes)


def _some(dataset: Dataset) -> Arrays:
    """Returns evenly spaced training examples."""
    size = dataset.sizes["train"]
    values = sum(math.prod(one.shape) for one in dataset.spec.named.values())
    most = max(FEWEST_EXAMPLES, min(MOST_EXAMPLES, MOST_VALUES // max(1, values)))
    chosen = np.unique(np.linspace(0, size - 1, min(size, most)).astype(int))
    return feed.read_examples(dataset.records("train"), chosen)


def far(
    recipe: preprocess.Recipe, state: Mapping[str, Any], inputs: Num[np.ndarray, "n *shape"]
) -> list[tuple[int, str]]:
    """Returns the columns or channels that scaling leaves far from 0, or all in one place.

    Args:
      recipe: what is done to an input.
      state: what its scaling learnt, of other data.
      inputs: examples.

    Returns:
      Of each its number, and in words where its values lie once they are scaled.
    """
    prepared = preprocess.before_scaling(recipe, inputs)
    values = prepared.reshape(-1, prepared.shape[-1]).astype(np.float64)
    numeric = np.ones(values.shape[1], bool)
    if recipe.categorical is not None:
        numeric &= ~recipe.categorical
    return list(_far(state, values, numeric, recipe.fields.scale == "minmax"))


def _far(
    state: Mapping[str, Any], values: np.ndarray, numeric: np.ndarray, from_0_to_1: bool = False
) -> Iterator[tuple[int, str]]:
    """Yields what `far` returns; what stages append to the columns of a table is left out."""
    width = values.shape[1]
    scaled = _scaled({name: _first(one, width) for name, one in state.items()}, values)
    scaled = 2 * scaled - 1 if from_0_to_1 else scaled
    for column in np.flatnonzero(numeric):
        known = scaled[:, column][np.isfinite(scaled[:, column])]
        if not len(known):
            continue
        spread, middle = float(np.ptp(known)), float(np.median(known))
        if abs(middle) > FAR or np.median(np.abs(known)) > FAR or 0 < spread < CLOSE:
            yield int(column), f"{known.mean():.3g} ± {known.std():.2g}"


def _first(array: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(array)[..., :width]


def _scaled(state: Mapping[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    """Returns values after scaling, but not drawn in as ``robust_clipped`` does."""
    if "quantiles" in state:
        return np.asarray(scale.apply(state, values.astype(np.float32)), np.float64)
    if "log" in state:
        logs = np.sign(values) * np.log1p(np.abs(values))
        values = np.where(state["log"] > 0, logs, values)
    return ((values - state["shift"]) - state["rest"]) / state["scale"]
