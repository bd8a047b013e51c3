"""Give each feature a normal distribution: its rank among the training values decides.

After scikit-learn's `QuantileTransformer(output_distribution="normal")`, as a pure function; a
choice of preprocessing for networks on tables of Gorishniy et al., "Revisiting deep learning models
for tabular data", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float  # its Array imports jax

ROWS_EACH, FEWEST, MOST = 30, 10, 256
"""A quantile for so many training rows; at least, and at most, so many quantiles."""
LARGEST = 1e30
"""Larger values are scaled down to it."""
FURTHEST = 5.19933758
"""Where a normal distribution has 1e-7 beyond: the least and the greatest value lie here."""


def fit(
    sample: Float[np.ndarray, "rows features"],
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns each feature's shift and scale, and its quantiles after both. NaN is left out.

    Ranks need neither, and small values beside a long tail would lose digits by both: the shift is
    0, and only values whose differences would be no float32 are scaled.

    Args:
      sample: training values as float64, of each feature at least one.

    Returns:
      Shifts, scales, and ``quantiles`` [count, features], at even shares from the least to the
      greatest value.
    """
    rows = len(sample)
    count = min(max(rows // ROWS_EACH, FEWEST), MOST, max(rows, 2))
    found = np.nanpercentile(sample, np.linspace(0, 100, count), axis=0)
    found = np.maximum.accumulate(found)  # interpolating may lose the order by a rounding
    scale = np.maximum(1.0, np.abs(found).max(axis=0) / LARGEST)
    return np.zeros_like(scale), scale, {"quantiles": (found / scale).astype(np.float32)}


def apply(state: Mapping[str, Any], values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns normal values: those that lie as far up in a normal distribution. Pure.

    Between two quantiles their places are interpolated; a value that several quantiles have is in
    their middle. What lies at or beyond the ends is ± `FURTHEST`, a feature without spread 0, NaN
    stays NaN.

    Args:
      state: ``quantiles`` of `fit`; ``normal`` is 1 for the features that are changed.
      values: shifted and scaled as `fit` says.
    """
    import jax
    import jax.numpy as jnp

    edges = jnp.asarray(state["quantiles"])
    last = len(edges) - 1

    def of_feature(edges: Array, x: Array) -> Array:
        below = (edges < x[:, None]).sum(axis=1)
        up_to = (edges <= x[:, None]).sum(axis=1)

        def place(right: Array) -> Array:
            right = jnp.clip(right, 1, last)
            low, high = edges[right - 1], edges[right]
            share = (x - low) / jnp.where(high > low, high - low, 1.0)
            return right - 1 + jnp.clip(share, 0.0, 1.0)

        # from the nearer end: 1 - p is no float32 where p is close to 1
        up = (place(up_to) + place(below)) / 2
        shorter = jnp.minimum(up, last - up) / last
        size = -jax.scipy.special.ndtri(jnp.maximum(shorter, 1e-7))
        normal = jnp.where(up < last / 2, -size, size)
        normal = jnp.where(x >= edges[-1], FURTHEST, normal)
        normal = jnp.where(x <= edges[0], -FURTHEST, normal)
        return jnp.where(edges[-1] > edges[0], normal, 0.0)

    columns = values.reshape(-1, edges.shape[1])
    changed = jax.vmap(of_feature, in_axes=1, out_axes=1)(edges, columns).reshape(values.shape)
    changed = jnp.where(jnp.isnan(values), values, changed)
    return jnp.where(jnp.asarray(state["normal"]) > 0, changed, values)
