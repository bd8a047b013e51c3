"""Find what misleads training in a table: outliers, duplicate rows, columns that leak the target.

Outliers are found by bounds, or by a forest, that are fitted once on the training split; clipping
and marking them are pure functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdlopt.data.named import Inputs, by_name
from jdlopt.errors import ConfigError, DataError, listing, nearest

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Num  # its Array imports jax

METHODS = ("none", "zscore", "iqr", "isolation_forest")
ACTIONS = ("clip", "drop", "mark")

THRESHOLDS = {"zscore": 3.0, "iqr": 1.5, "isolation_forest": 0.6}
"""What a method takes for an outlier, where no threshold is given."""

State = dict[str, Any]
"""Empty, or one of ``clip`` and ``mark`` with what tells outliers:

  low, high: float32 [columns]; the bounds. A column that has none has float32's own range.
  feature: int32 [trees, inner nodes], threshold: float32 [trees, inner nodes], path: float32
    [trees, leaves], shortest: float32 []; a forest of complete binary trees, each in breadth-first
    order, and the mean path below which a row is an outlier.
"""


def check(method: str, action: str) -> None:
    """Raises a `ConfigError` if there is no such method or action, or they don't go together."""
    for key, name, known in [("outliers", method, METHODS), ("outlier_action", action, ACTIONS)]:
        if name not in known:
            raise ConfigError(
                f"data.preprocess.{key}: {name!r} is unknown.{nearest(name, known)} "
                f"Known: {listing(known)}."
            )
    if method == "isolation_forest" and action == "clip":
        raise ConfigError(
            "data.preprocess: an isolation forest tells which rows are outliers, but no bounds to "
            "clip to. Use the action 'drop' or 'mark', or the method 'zscore' or 'iqr'."
        )


def fit(
    values: Float[np.ndarray, "rows columns"],
    *,
    method: str,
    action: str,
    threshold: float | None = None,
    contamination: float | None = None,
    categorical: Bool[np.ndarray, " columns"] | None = None,
    seed: int = 0,
) -> State:
    """Returns what `apply` needs to clip or mark outliers, from the training rows alone.

    ``zscore``: beyond ``mean ± threshold · standard deviation``. ``iqr``: beyond
    ``[Q1 - threshold · (Q3 - Q1), Q3 + threshold · (Q3 - Q1)]``. NaN is left out of account, and
    a column without spread (such as one that is mostly 0, by ``iqr``) has no outliers.
    ``isolation_forest``: rows whose anomaly score ``2^(-mean path / c)`` is above the threshold.

    ``clip`` moves values to the nearest bound. ``mark`` appends a column that is 1 for a row with
    an outlier, 0 for others. ``drop`` is for training rows (`mark`), and leaves other splits alone.

    Args:
      values: the training rows.
      method: one of `METHODS`.
      action: one of `ACTIONS`.
      threshold: how far is too far; None takes the method's of `THRESHOLDS`.
      contamination: of the forest, in place of a threshold: the share of training rows that are
        outliers.
      categorical: the columns that hold codes of categories, which have no outliers.
      seed: of the forest.

    Raises:
      ConfigError: method and action are unknown, or don't go together.
      DataError: the forest is given missing values, or no training row would stay.

    Reference:
      Tukey, "Exploratory Data Analysis", 1977 (iqr); Liu, Ting and Zhou, "Isolation Forest", 2008.

    Example:
      >>> values = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])
      >>> state = fit(values, method="iqr", action="clip")
      >>> apply(state, np.array([[-50.0], [3.0]], "float32")).tolist()
      [[-1.0], [3.0]]
    """
    check(method, action)
    if method == "none":
        return {}
    options: dict[str, Any] = {
        "method": method,
        "threshold": threshold,
        "contamination": contamination,
        "categorical": categorical,
        "seed": seed,
    }
    if action != "drop":
        return {action: _limits(values, **options)}
    if mark(values, **options).all():
        raise DataError(
            f"data.preprocess: dropping the outliers of {method!r} would leave none of "
            f"{len(values)} training rows. Set a higher threshold, or clip instead."
        )
    return {}


def mark(
    values: Float[np.ndarray, "rows columns"],
    *,
    method: str,
    threshold: float | None = None,
    contamination: float | None = None,
    categorical: Bool[np.ndarray, " columns"] | None = None,
    seed: int = 0,
) -> Bool[np.ndarray, " rows"]:
    """Returns which training rows are outliers, or have one, by what `fit` learns from them.

    Example:
      >>> mark(np.array([[1.0], [2.0], [3.0], [4.0], [100.0]]), method="iqr").tolist()
      [False, False, False, False, True]
    """
    import jax.numpy as jnp

    if method == "none":
        return np.zeros(len(values), bool)
    limits = _limits(values, method, threshold, contamination, categorical, seed)
    return np.asarray(outlying_rows(limits, jnp.asarray(values, jnp.float32)))


def _limits(
    values: np.ndarray,
    method: str,
    threshold: float | None,
    contamination: float | None,
    categorical: np.ndarray | None,
    seed: int,
) -> State:
    """What tells outliers: bounds, or a forest."""
    values = np.asarray(values, np.float64)
    is_code = np.zeros(values.shape[1], bool) if categorical is None else np.asarray(categorical)
    limit = THRESHOLDS[method] if threshold is None else threshold
    if method == "isolation_forest":
        return _forest(np.where(is_code, 0.0, values), limit, contamination, seed)
    whole = np.where(is_code | np.isnan(values).all(axis=0), 0.0, values)  # without spread
    if method == "zscore":
        middle, spread = np.nanmean(whole, axis=0), np.nanstd(whole, axis=0)
        low, high = middle - limit * spread, middle + limit * spread
    else:
        lower, upper = np.nanpercentile(whole, [25, 75], axis=0)
        spread = upper - lower
        low, high = lower - limit * spread, upper + limit * spread
    most = float(np.finfo(np.float32).max)
    constant = np.nanmin(whole, axis=0) == np.nanmax(whole, axis=0)  # but for rounding of its std
    bounded = (spread > 0) & ~constant
    return {
        "low": np.where(bounded, np.clip(low, -most, most), -most).astype(np.float32),
        "high": np.where(bounded, np.clip(high, -most, most), most).astype(np.float32),
    }


def _forest(values: np.ndarray, threshold: float, contamination: float | None, seed: int) -> State:
    """A fitted forest as complete trees: a leaf above the last level stands for all below it."""
    from sklearn.ensemble import IsolationForest  # takes a second to import

    if np.isnan(values).any():
        raise DataError(
            "data.preprocess: an isolation forest needs complete rows; found missing values in "
            f"{int(np.isnan(values).any(axis=1).sum())} of {len(values)} training rows. Fill them "
            "in first with data.preprocess.missing, or use 'zscore' or 'iqr'."
        )
    forest = IsolationForest(random_state=seed).fit(values)
    if contamination is not None:
        threshold = -float(np.percentile(forest.score_samples(values), 100.0 * contamination))
    levels = max(tree.tree_.max_depth for tree in forest.estimators_)
    trees = [_complete_tree(estimator.tree_, levels) for estimator in forest.estimators_]
    features, thresholds, paths = (np.stack(part) for part in zip(*trees, strict=True))
    exact = thresholds.astype(np.float32)
    # the largest float32 that is no larger sends each float32 value to the same side
    exact = np.where(exact > thresholds, np.nextafter(exact, np.float32(-np.inf)), exact)
    average = float(_mean_path(np.array([forest.max_samples_]))[0])
    return {
        "feature": features.astype(np.int32),
        "threshold": exact,
        "path": paths.astype(np.float32),
        "shortest": np.float32(-np.log2(threshold) * average),
    }


def _complete_tree(tree: Any, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nodes, depth = np.zeros(1, int), np.zeros(1)
    features, thresholds = [np.zeros(0)], [np.zeros(0)]
    for _ in range(levels):
        left, right = tree.children_left[nodes], tree.children_right[nodes]
        is_leaf = left < 0
        features.append(np.where(is_leaf, 0, tree.feature[nodes]))
        thresholds.append(np.where(is_leaf, 0.0, tree.threshold[nodes]))
        left, right = np.where(is_leaf, nodes, left), np.where(is_leaf, nodes, right)
        nodes = np.stack([left, right], axis=1).reshape(-1)
        depth = np.repeat(depth + ~is_leaf, 2)
    paths = depth + _mean_path(tree.n_node_samples[nodes])
    return np.concatenate(features), np.concatenate(thresholds), paths


def _mean_path(samples: np.ndarray) -> np.ndarray:
    """c(n) = 2 H(n - 1) - 2 (n - 1) / n: the mean path of a failed search in a tree of n rows."""
    many = np.maximum(samples, 3).astype(np.float64)
    paths = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(samples > 2, paths, np.where(samples == 2, 1.0, 0.0))


def outlying_cells(
    limits: Mapping[str, Any], values: Float[Array | np.ndarray, "n columns"]
) -> Bool[Array | np.ndarray, "n columns"]:
    """Returns which values lie beyond the bounds ``low`` and ``high``; a missing one not. Pure.

    Args:
      limits: ``state["clip"]`` or ``state["mark"]`` of a `State` with bounds.
      values: a batch.
    """
    return (values < limits["low"]) | (values > limits["high"])


def outlying_rows(
    limits: Mapping[str, Any], values: Float[Array | np.ndarray, "n columns"]
) -> Bool[Array, " n"]:
    """Returns which rows have a value beyond the bounds, or are isolated by the forest. Pure.

    Args:
      limits: ``state["clip"]`` or ``state["mark"]`` of a `State`.
      values: a batch.
    """
    import jax
    import jax.numpy as jnp

    if "low" in limits:
        return jnp.asarray(outlying_cells(limits, values)).any(axis=1)
    values = jnp.asarray(values)

    def add_path(total: Array, tree: tuple[Array, Array, Array]) -> tuple[Array, None]:
        feature, threshold, path = tree
        place = jnp.zeros(values.shape[0], jnp.int32)
        for level in range(path.shape[0].bit_length() - 1):
            node = (1 << level) - 1 + place
            tested = jnp.take_along_axis(values, feature[node][:, None], axis=1)[:, 0]
            place = 2 * place + (tested > threshold[node])
        return total + path[place], None

    # tree by tree, so that memory does not grow with their number
    feature = jnp.asarray(limits["feature"]).astype(jnp.int32)
    trees = (feature, jnp.asarray(limits["threshold"]), jnp.asarray(limits["path"]))
    total, _ = jax.lax.scan(add_path, jnp.zeros(values.shape[0]), trees)
    return total / feature.shape[0] < limits["shortest"]


def apply(
    state: Mapping[str, Any], values: Float[Array | np.ndarray, "n columns"]
) -> Float[Array, "n columns_and_mark"]:
    """Returns values clipped to the bounds, or with the column of marks appended. Pure.

    Args:
      state: what `fit` returned.
      values: a batch; NaN stays NaN.
    """
    import jax.numpy as jnp

    values = jnp.asarray(values, jnp.float32)
    if "clip" in state:
        values = jnp.clip(values, state["clip"]["low"], state["clip"]["high"])
    if "mark" in state:
        marks = outlying_rows(state["mark"], values).astype(jnp.float32)
        values = jnp.concatenate([values, marks[:, None]], axis=1)
    return values


# --- duplicates and leaks -------------------------------------------------------------------------

LEAST_ROWS = 10
"""With fewer rows than this, a correlation close to 1 is often chance."""

LEAKING_CORRELATION = 0.999


class Leak(NamedTuple):
    """A column that gives the target away, and how."""

    column: str
    why: str


def duplicate_rows(
    values: Inputs, targets: Num[np.ndarray, "rows *target"]
) -> Bool[np.ndarray, " rows"]:
    """Returns which rows equal an earlier one, target included; two missing values are equal.

    Args:
      values: inputs of any shape; of several, rows are equal where all of them are.
      targets: their targets.

    Example:
      >>> duplicate_rows(np.array([[1.0], [2.0], [1.0]]), np.array([0, 1, 0])).tolist()
      [False, False, True]
    """
    columns = []
    for part in (*by_name(values).values(), targets):
        flat = np.asarray(part).reshape(len(part), -1)
        if flat.dtype.kind == "f":
            flat = np.where(np.isnan(flat), np.nan, flat) + 0.0  # one NaN, and no -0
        columns.append(np.ascontiguousarray(flat))
    seen: set[bytes] = set()
    marks = np.zeros(len(targets), bool)
    for row, parts in enumerate(zip(*columns, strict=True)):
        words = b"".join(part.tobytes() for part in parts)
        digest = hashlib.blake2b(words, digest_size=16).digest()
        marks[row] = digest in seen
        seen.add(digest)
    return marks


def leaking_columns(
    values: Float[np.ndarray, "rows columns"],
    targets: Num[np.ndarray, " rows"],
    names: Sequence[str],
) -> list[Leak]:
    """Returns the columns that give the target away, which no honest feature does.

    A column leaks if it equals the target wherever it has a value; if each of its values (a
    missing one is a value here) goes with one target and the other way round; if it lacks values
    exactly where the target is one of two; or if its correlation with the target is 0.999 or more,
    or -0.999 or less.

    Args:
      values: the training rows; NaN where a value is missing.
      targets: classes, or values to predict.
      names: the columns' names.

    Example:
      >>> leaking_columns(np.array([[7.0], [9.0], [7.0], [9.0]]), np.array([0, 1, 0, 1]), ["id"])
      [Leak(column='id', why='each of its 2 values goes with one target and the reverse')]
    """
    target = np.asarray(targets, np.float64)
    found = []
    for index, name in enumerate(names):
        why = _leak(np.asarray(values[:, index], np.float64), target)
        found += [Leak(str(name), why)] if why else []
    return found


def _leak(column: np.ndarray, target: np.ndarray) -> str | None:
    known = ~np.isnan(column)
    if not known.any() or (target == target[0]).all():
        return None
    enough = known.all() or known.sum() >= LEAST_ROWS
    if enough and (column[known] == target[known]).all() and np.ptp(target[known]) > 0:
        return "equals the target" + ("" if known.all() else " wherever it has a value")
    pairs = _one_to_one(column, target)
    if pairs:
        return f"each of its {pairs} values goes with one target and the reverse"
    if _one_to_one(known.astype(np.float64), target):
        return "lacks values exactly where the target is one of two"
    if known.sum() < LEAST_ROWS or np.ptp(column[known]) == 0 or np.ptp(target[known]) == 0:
        return None
    correlation = float(np.corrcoef(column[known], target[known])[0, 1])
    if abs(correlation) < LEAKING_CORRELATION:
        return None
    return f"its correlation with the target is {correlation:.4f}"


def _one_to_one(column: np.ndarray, target: np.ndarray) -> int:
    """How many values a column has, if they map one to one to the targets; else 0.

    Where most values occur once, as in a regression, a one-to-one map says nothing.
    """
    distinct, codes = np.unique(column, return_inverse=True)
    classes, labels = np.unique(target, return_inverse=True)
    if len(distinct) != len(classes) or 2 * len(classes) > len(target):
        return 0
    pairs = np.unique(codes * len(classes) + labels)
    return len(classes) if len(pairs) == len(classes) else 0
