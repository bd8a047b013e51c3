"""Piecewise-linear encoding of numbers: how far a value has come through each of several bins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float  # its Array imports jax


def fit(
    values: Float[np.ndarray, "rows columns"],
    *,
    bins: int,
    numeric: Bool[np.ndarray, " columns"],
) -> dict[str, np.ndarray]:
    """Returns what `apply` needs: bins between quantiles of the training rows, NaN left out.

    A column with fewer different quantiles has fewer bins; its others always encode to 0.

    Args:
      values: the training split's, scaled.
      bins: of each column.
      numeric: the columns that are encoded.

    Returns:
      ``low`` and ``slope`` [encoded columns, bins]: where each bin begins, and 1 / its width, 0
      for none; ``columns``, which are encoded.

    Example:
      >>> state = fit(np.array([[0.0], [1.0], [4.0]]), bins=2, numeric=np.array([True]))
      >>> state["low"].tolist(), state["slope"].round(3).tolist()
      ([[0.0, 1.0]], [[1.0, 0.3330000042915344]])
    """
    columns = np.flatnonzero(numeric)
    low, slope = np.zeros((2, len(columns), bins), np.float32)
    for place, column in enumerate(columns):
        known = values[:, column][~np.isnan(values[:, column])]
        if not len(known):
            continue
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)).astype(np.float32))
        widths = np.diff(edges)
        low[place, : len(widths)] = edges[:-1]
        slope[place, : len(widths)] = 1 / widths
    return {"columns": columns.astype(np.float32), "low": low, "slope": slope}


def apply(
    state: Mapping[str, Any], values: Float[Array | np.ndarray, "n columns"]
) -> Float[Array, "n more"]:
    """Appends to rows the encoding of their numbers. Pure; nothing learnt changes nothing.

    Bin t of a number x holds ``min(1, max(0, (x - low_t) / width_t))``: 1 where x is above it, 0
    where x is below, and a share between. NaN stays NaN. Gorishniy, Rubachev and Babenko, "On
    embeddings for numerical features in tabular deep learning", 2022; there the outer bins have no
    ends, here the number itself stays beside them.

    Args:
      state: what `fit` returned, or empty.
      values: a batch of rows.

    Example:
      >>> state = fit(np.array([[0.0], [1.0], [4.0]]), bins=2, numeric=np.array([True]))
      >>> apply(state, np.array([[2.5], [9.0]], "float32")).tolist()
      [[2.5, 1.0, 0.5], [9.0, 1.0, 1.0]]
    """
    import jax.numpy as jnp

    rows = jnp.asarray(values)
    if not state:
        return rows
    numbers = rows[:, jnp.asarray(state["columns"]).astype(jnp.int32), None]
    shares = jnp.clip((numbers - state["low"]) * state["slope"], 0.0, 1.0)
    return jnp.concatenate([rows, shares.reshape(rows.shape[0], -1)], axis=1)
