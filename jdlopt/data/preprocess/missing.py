"""Fill in missing values (NaN): fitted once on the training split, applied as a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.errors import ConfigError, DataError, listing, nearest

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int  # its Array imports jax

METHODS = ("none", "drop", "mean", "median", "most_frequent", "maximum", "constant", "knn")

MOST_DONORS = 4096
"""So many training rows are kept to find the nearest in: each batch is compared with all of them,
and they are saved with the run."""

CELLS = 64
"""So many missing values are filled in from their nearest rows at a time."""

State = dict[str, Any]
"""Empty, or some of:

  fill: float32 [columns]; what a missing value becomes.
  donors: float32 [donors, some], with NaN; the training rows to find the nearest in. Rows of NaN
    alone may be added: they change nothing.
  columns: int32 [some]; the columns that the donors have.
  weights: float32 [neighbours] of ones; one for each of the nearest donors.
  indicator: int32 [flagged]; the columns for which a column of 0 and 1 is appended.
"""


def fit(
    values: Float[np.ndarray, "rows columns"],
    *,
    method: str,
    fill_value: float | Float[np.ndarray, "*columns"] = 0.0,
    neighbours: int = 5,
    missing_indicator: bool = False,
    categorical: Bool[np.ndarray, " columns"] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    most_donors: int = MOST_DONORS,
) -> State:
    """Returns what `apply` needs to fill in missing values, from the training rows alone.

    A numeric column is filled with its training ``mean``, ``median``, ``most_frequent`` value (the
    smallest of several) or ``maximum``, or with ``fill_value`` (``constant``). ``knn`` takes the
    mean of the column over the ``neighbours`` nearest training rows that have it, or over all
    rows where no distance is known; the distance of two rows a, b is
    ``sqrt(columns / |both| · Σ_both (a - b)²)``, over the numeric columns that both have. ``drop``
    is for training rows (`complete_rows`); in the other splits it fills in the mean of the
    training rows that stay. A categorical column is filled with its most frequent code, or with
    code 0, the place of unknown categories, by ``constant``.

    Args:
      values: the training rows; NaN where a value is missing.
      method: one of `METHODS`; ``none`` leaves missing values.
      fill_value: what ``constant`` fills in, or for each column.
      neighbours: of ``knn``; all donors, if there are fewer.
      missing_indicator: for every column that lacks values in the training rows, a column is
        appended that is 1 where the value was missing and 0 elsewhere.
      categorical: the columns that hold codes of categories; None for none.
      names: the columns' names, for messages.
      seed: chooses the rows that ``knn`` keeps, if there are more than ``most_donors``.
      most_donors: training rows that ``knn`` keeps.

    Raises:
      ConfigError: the method is unknown, or ``drop`` should be indicated.
      DataError: a column has no value in any training row, or no training row is complete.

    Reference:
      Troyanskaya et al., "Missing value estimation methods for DNA microarrays", 2001 (knn).

    Example:
      >>> state = fit(np.array([[1.0, 4.0], [np.nan, 6.0]]), method="mean", missing_indicator=True)
      >>> apply(state, np.array([[np.nan, np.nan]], "float32")).tolist()
      [[1.0, 5.0, 1.0]]
    """
    if method not in METHODS:
        raise ConfigError(
            f"data.preprocess.missing: {method!r} is unknown.{nearest(method, METHODS)} "
            f"Known: {listing(METHODS)}."
        )
    values = np.asarray(values, np.float64)
    flags = np.flatnonzero(np.isnan(values).any(axis=0)).astype(np.int32)
    state: State = {}
    if missing_indicator and len(flags):
        if method == "drop":
            raise ConfigError(
                "data.preprocess: missing='drop' leaves no training row with a missing value, so "
                "there is nothing for missing_indicator to learn from. Fill in with another "
                "method, or set missing_indicator=False."
            )
        state["indicator"] = flags
    if method == "none":
        return state
    _check_columns(values, names)
    if method == "drop":
        kept = complete_rows(values)
        if not kept.any():
            raise DataError(
                f"data.preprocess.missing='drop' would leave none of {len(values)} training rows: "
                "each lacks a value. Fill in instead, for instance with missing='median', or leave "
                "the columns that lack most out with data.ignore."
            )
        values = values[kept]
    is_code = np.zeros(values.shape[1], bool) if categorical is None else np.asarray(categorical)
    state["fill"] = _fill(values, method, fill_value, is_code).astype(np.float32)
    if method == "knn" and not is_code.all():
        columns = np.flatnonzero(~is_code)
        chosen = _sample(len(values), most_donors, seed)
        state["donors"] = values[np.ix_(chosen, columns)].astype(np.float32)
        state["columns"] = columns.astype(np.int32)
        state["weights"] = np.ones(min(neighbours, len(chosen)), np.float32)
    return state


def complete_rows(values: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, " rows"]:
    """Returns which rows lack no value: those that ``drop`` keeps for training.

    Example:
      >>> complete_rows(np.array([[1.0, np.nan], [2.0, 3.0]])).tolist()
      [False, True]
    """
    return ~np.isnan(values).any(axis=1)


def _check_columns(values: np.ndarray, names: Sequence[str] | None) -> None:
    empty = np.flatnonzero(np.isnan(values).all(axis=0))
    if len(empty) == 0:
        return
    shown = [repr(str(names[index])) if names else f"number {index}" for index in empty.tolist()]
    ignored = ", ".join(shown) + ("," if len(shown) == 1 else "")
    raise DataError(
        f"data.preprocess.missing: {listing(shown)} {'has' if len(empty) == 1 else 'have'} no "
        f"value in any of the {len(values)} training rows, so there is nothing to fill in from. "
        + (f"Leave out with data.ignore=({ignored})." if names else "Leave these columns out.")
    )


def _fill(
    values: np.ndarray,
    method: str,
    fill_value: float | Float[np.ndarray, "*columns"],
    is_code: Bool[np.ndarray, " columns"],
) -> Float[np.ndarray, " columns"]:
    from sklearn.impute import SimpleImputer  # takes a second to import

    fill = np.zeros(values.shape[1])
    if method == "constant":
        fill[~is_code] = np.broadcast_to(fill_value, fill.shape)[~is_code]
        return fill
    if method == "maximum":
        fill = np.nanmax(values, axis=0)
    elif not is_code.all():
        strategy = {"drop": "mean", "knn": "mean"}.get(method, method)
        imputer = SimpleImputer(strategy=strategy).fit(values[:, ~is_code])
        fill[~is_code] = imputer.statistics_
    if is_code.any():
        imputer = SimpleImputer(strategy="most_frequent").fit(values[:, is_code])
        fill[is_code] = imputer.statistics_
    return fill


def _sample(rows: int, most: int, seed: int) -> Int[np.ndarray, " chosen"]:
    """At most so many rows, in order. It sorts Philox's raw words, a stream that numpy keeps."""
    if rows <= most:
        return np.arange(rows)
    words = np.random.Philox(key=[seed, 0]).random_raw(rows)
    return np.sort(np.argsort(words, kind="stable")[:most])


def apply(
    state: Mapping[str, object], values: Float[Array | np.ndarray, "n columns"]
) -> Float[Array, "n columns_and_indicators"]:
    """Returns values with the missing ones filled in, and the indicators appended. Pure.

    The memory that ``knn`` needs is that of `CELLS` × donors numbers, and its time grows with the
    number of missing values alone.

    Args:
      state: what `fit` returned.
      values: a batch, with NaN where a value is missing.
    """
    import jax.numpy as jnp

    values = jnp.asarray(values, jnp.float32)
    filled = _from_nearest(state, values) if "donors" in state else values
    if "fill" in state:
        filled = jnp.where(jnp.isnan(filled), jnp.asarray(state["fill"]), filled)
    if "indicator" in state:
        flagged = values[:, jnp.asarray(state["indicator"]).astype(jnp.int32)]
        filled = jnp.concatenate([filled, jnp.isnan(flagged).astype(jnp.float32)], axis=1)
    return filled


def _from_nearest(
    state: Mapping[str, object], values: Float[Array | np.ndarray, "n columns"]
) -> Float[Array, "n columns"]:
    """Values with the missing ones of the donors' columns filled in from the nearest donors.

    It goes through a list of the missing cells, as long as there are any, and takes their rows'
    distances to all donors.
    """
    import jax
    import jax.numpy as jnp

    columns = jnp.asarray(state["columns"]).astype(jnp.int32)
    donors, weights = jnp.asarray(state["donors"]).T, jnp.asarray(state["weights"])
    known = ~jnp.isnan(donors)
    rows = jax.lax.stop_gradient(values)[:, columns]
    n, width = rows.shape
    missing = jnp.isnan(rows)
    chunks = -(-n * width // CELLS)
    # beyond the missing cells the list names a cell that isn't there: its result is dropped
    (cells,) = jnp.nonzero(missing.reshape(-1), size=chunks * CELLS, fill_value=n * width)

    def fill_some(chunk: Int[Array, ""], filled: Float[Array, " cells"]) -> Float[Array, " cells"]:
        some = jax.lax.dynamic_slice(cells, (chunk * CELLS,), (CELLS,))
        row, column = jnp.minimum(some // width, n - 1), some % width
        squares, shared = _squared_differences(rows[row], donors)
        is_near = known[column] & (shared > 0)
        distance = jnp.where(is_near, squares / jnp.maximum(shared, 1), jnp.inf)
        least, nearest_donors = jax.lax.top_k(-distance, len(weights))
        weight = jnp.where(jnp.isfinite(least), weights, 0.0)
        found = jnp.where(weight > 0, donors[column[:, None], nearest_donors], 0.0)
        count = weight.sum(axis=1)
        mean = (weight * found).sum(axis=1) / jnp.maximum(count, 1.0)
        return filled.at[some].set(jnp.where(count > 0, mean, jnp.nan), mode="drop")

    chunks_with_cells = (missing.sum() + CELLS - 1) // CELLS
    filled = jax.lax.fori_loop(0, chunks_with_cells, fill_some, rows.reshape(-1))
    return (
        jnp.asarray(values)
        .at[:, columns]
        .set(jnp.where(missing, filled.reshape(n, width), values[:, columns]))
    )


def _squared_differences(
    rows: Float[Array, "some columns"], donors: Float[Array, "columns donors"]
) -> tuple[Float[Array, "some donors"], Float[Array, "some donors"]]:
    """Σ (a - b)² over the columns that both have, and how many these are.

    Differences are squared as they are: in float32 ``|a|² + |b|² - 2ab`` would lose the digits that
    tell near rows apart. Summed up column by column, XLA's CPU backend takes a fourteenth of the
    time of one reduction over all.
    """
    import jax
    import jax.numpy as jnp

    def add_column(
        sums: tuple[Array, Array], column: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        squares, shared = sums
        difference = column[0][:, None] - column[1]
        both = ~jnp.isnan(difference)
        squares = squares + jnp.where(both, difference * difference, 0.0)
        return (squares, shared + both), None

    zeros = jnp.zeros((rows.shape[0], donors.shape[1]))
    sums, _ = jax.lax.scan(add_column, (zeros, zeros), (rows.T, donors))
    return sums


def output_names(state: Mapping[str, object], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the columns after `apply`.

    Example:
      >>> output_names({"indicator": np.array([1])}, ["age", "income"])
      ('age', 'income', 'income is missing')
    """
    flagged = np.asarray(state.get("indicator", ())).astype(int)
    return (*names, *(f"{names[index]} is missing" for index in flagged))
