"""Fewer columns: constant ones found, or all projected on their principal components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float  # its Array imports jax

LEAST_DEVIATION = 1e-6
"""A component whose standard deviation is smaller, as a share of the first's, is float32's noise:
whitening leaves it small."""

State = dict[str, Any]
"""Empty, or

  mean: float32 [columns]; components: float32 [components, columns], orthonormal rows; and with
    whitening deviation: float32 [components].
"""


EXACT_COST = 1e10
"""Products of a singular value decomposition that are always computed."""
EXACT_COLUMNS = 4096
"""With so many columns or fewer the covariances are decomposed, however many rows there are."""
RANDOMIZED = "principal components are found by a randomised solver, almost exactly"


def fit(
    values: Float[np.ndarray, "rows columns"],
    *,
    components: int | float,
    whiten: bool = False,
    seed: int = 0,
) -> State:
    """Returns the mean and the first principal components of the training rows.

    Args:
      values: the training rows, without missing values; best scaled before.
      components: how many; or, between 0 and 1, the share of the variance that is to be kept by as
        few as will do.
      whiten: divide each component by its standard deviation.
      seed: of the randomised solver, where `solver` takes it.

    Raises:
      ConfigError: the number of components is neither.
      DataError: a value is missing, or there are fewer rows or columns than components.

    Reference:
      Pearson, "On lines and planes of closest fit to systems of points in space", 1901.

    Example:
      >>> state = fit(np.array([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]), components=0.99)
      >>> state["components"].shape
      (1, 2)
    """
    from sklearn.decomposition import PCA  # takes a second to import

    values = np.asarray(values, np.float64)
    is_share = isinstance(components, float)
    if not (0 < components < 1 if is_share else components >= 1):
        raise ConfigError(
            f"data.preprocess.pca: found {components!r}; expected a number of components, at least "
            "1, or the share of the variance to keep, between 0 and 1."
        )
    if np.isnan(values).any():
        raise DataError(
            "data.preprocess.pca: found missing values in "
            f"{int(np.isnan(values).any(axis=1).sum())} of {len(values)} training rows. Fill them "
            "in first with data.preprocess.missing."
        )
    if not is_share and components > min(values.shape):
        raise DataError(
            f"data.preprocess.pca: found {components} components of {values.shape[0]} training "
            f"rows and {values.shape[1]} columns; expected {min(values.shape)} at most."
        )
    if np.ptp(values, axis=0).max() == 0:
        raise DataError(
            f"data.preprocess.pca: all {values.shape[1]} columns are constant in the training "
            "rows, so there is no variance to keep."
        )
    used = solver(len(values), values.shape[1], components)
    fitted = PCA(n_components=components, svd_solver=used, random_state=seed).fit(values)
    state = {
        "mean": fitted.mean_.astype(np.float32),
        "components": fitted.components_.astype(np.float32),
    }
    if whiten:
        deviation = np.sqrt(fitted.explained_variance_)
        is_noise = deviation < LEAST_DEVIATION * deviation[0]
        state["deviation"] = np.where(is_noise, deviation[0], deviation).astype(np.float32)
    return state


def solver(rows: int, columns: int, components: float) -> str:
    """Returns which of scikit-learn's solvers finds the components: an exact one, if there is time.

    Args:
      rows, columns: of the training rows' matrix.
      components: how many are to be found, or the share of the variance.

    Example:
      >>> solver(1000, 20, 5), solver(100_000, 3000, 50), solver(20_000, 12_288, 50)
      ('full', 'covariance_eigh', 'randomized')
    """
    if min(rows, columns) ** 2 * max(rows, columns) <= EXACT_COST:
        return "full"
    if columns <= EXACT_COLUMNS or components < 1:
        return "covariance_eigh" if rows >= columns else "full"
    return "randomized"


def apply(
    state: Mapping[str, Any], values: Float[Array | np.ndarray, "n columns"]
) -> Float[Array, "n components"]:
    """Returns ``(values - mean) · componentsᵀ``, divided by ``deviation`` if whitened. Pure.

    Args:
      state: what `fit` returned.
      values: a batch.
    """
    import jax
    import jax.numpy as jnp

    values = jnp.asarray(values, jnp.float32)
    if not state:
        return values
    components = jnp.asarray(state["components"])
    projected = jnp.matmul(
        values - state["mean"], components.T, precision=jax.lax.Precision.HIGHEST
    )
    return projected / state["deviation"] if "deviation" in state else projected


# --- constant columns -----------------------------------------------------------------------------


def constant_columns(values: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, " columns"]:
    """Returns which columns have one value at most, wherever they have one.

    Example:
      >>> constant_columns(np.array([[1.0, 2.0], [1.0, 3.0], [np.nan, 4.0]])).tolist()
      [True, False]
    """
    known = ~np.isnan(values)
    low = np.where(known, values, np.inf).min(axis=0)
    return low >= np.where(known, values, -np.inf).max(axis=0)
