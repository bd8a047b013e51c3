"""What examples say: calibration, classes, whether two splits are alike, what gives a target away.

Functions of arrays alone; scikit-learn fits and scipy tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from jdlopt.data.check.examples import filled, sampled

BINS = 15
"""Bins of the calibration error, as in Guo et al., 2017."""
DRAWS = 200
FEW = 30
"""Of fewer examples in a split nothing is said."""
MOST = 2000
"""Training examples that columns are looked at one by one on."""
OF_SPLIT = 1000
"""Examples of a split that a model is fitted on, to tell it from another split."""
COMPONENTS = 50
"""Principal components of inputs with more values than `WIDE`."""
WIDE = 100
FOLDS = 3
COLUMNS = 200
"""Columns that are looked at one by one, at most."""
TREES = 100


def calibration(
    probabilities: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"], bins: int = BINS
) -> dict[str, object]:
    r"""Returns the expected calibration error ``Σ_b n_b/n |accuracy_b - confidence_b|``.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017. Few examples
    have an error by chance; ``chance`` is its 95th percentile were each guess right with the
    probability that it claims.

    Args:
      probabilities: of each class.
      targets: the classes.
      bins: of equal width in confidence.

    Returns:
      ``ece``, ``chance``, ``confidence`` and ``accuracy`` over all, and ``bins``, each with
      ``confidence``, ``accuracy`` and ``count``; empty ones are left out.

    Example:
      >>> found = calibration(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
      >>> round(found["ece"], 3)
      0.45
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == targets
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    draw = np.random.default_rng(0)
    drawn = draw.random((DRAWS, len(targets))) < confidence
    by_chance = [_ece(confidence, some, places, bins) for some in drawn]
    rows = [
        {
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
            "count": int((places == place).sum()),
        }
        for place in range(bins)
        if (places == place).any()
    ]
    return {
        "ece": _ece(confidence, right, places, bins),
        "chance": float(np.percentile(by_chance, 95)),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "bins": rows,
    }


def _ece(confidence: np.ndarray, right: np.ndarray, places: np.ndarray, bins: int) -> float:
    gaps = np.bincount(places, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


# --- two splits -----------------------------------------------------------------------------------


def vectors(
    inputs: Num[np.ndarray, "n *shape"],
    train: Num[np.ndarray, "m *shape"] | None = None,
    categories: Sequence[int] = (),
) -> Float[np.ndarray, "n values"]:
    """Returns examples as vectors of floats, gaps filled with the training split's medians.

    Args:
      inputs: of a split.
      train: the training split's, whose medians fill gaps; by default ``inputs`` are these.
      categories: columns of category codes. Code 0, a category that the training split does not
        have, is as unknown as any other: in its place stands one drawn from the training split's.
    """

    def flat(values: np.ndarray) -> np.ndarray:
        found = np.asarray(values, np.float64).reshape(len(values), -1)
        return np.where(np.isfinite(found), found, np.nan)

    ours = flat(inputs)
    theirs = ours if train is None else flat(train)
    draw = np.random.default_rng(0)
    for column in categories:
        unknown = np.flatnonzero(ours[:, column] == 0)
        seen = theirs[theirs[:, column] > 0, column]
        if len(unknown) and len(seen):
            ours[unknown, column] = draw.choice(seen, len(unknown))
    return filled(ours, theirs)


def reduced(*splits: np.ndarray) -> list[np.ndarray]:
    """Returns wide vectors as principal components, others as they are.

    The components are those of all splits together: along components of one of them alone its own
    examples spread further than others do, and that would tell the splits apart.
    """
    from sklearn.decomposition import PCA

    if splits[0].shape[1] <= WIDE:
        return list(splits)
    every = np.concatenate(splits)
    some = every[sampled(len(every), MOST)]
    components = min(COMPONENTS, len(some) - 1)
    made = PCA(components, svd_solver="randomized", random_state=0).fit(some)
    return [made.transform(split) for split in splits]


def two_sample(
    one: Float[np.ndarray, "n values"], other: Float[np.ndarray, "m values"]
) -> dict[str, float] | None:
    """Measures how well two splits can be told apart: a held-out classifier's area under the ROC.

    A classifier two-sample test (Lopez-Paz and Oquab, 2017) by a random forest, its guesses out of
    fold. Splits drawn alike have an area of 1/2, with Hanley and McNeil's (1982) standard error at
    1/2, ``√((n + m + 1) / 12 n m)``.

    Args:
      one, other: the splits' examples, as vectors.

    Returns:
      ``area``, ``error`` and ``z``; None where a split is too small.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    one, other = one[sampled(len(one), OF_SPLIT)], other[sampled(len(other), OF_SPLIT)]
    if min(len(one), len(other)) < FEW:
        return None
    one, other = reduced(one, other)
    values = np.concatenate([one, other])
    split = np.repeat([0, 1], [len(one), len(other)])
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=5, class_weight="balanced", random_state=0, n_jobs=1
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(forest, values, split, cv=folds, method="predict_proba")[:, 1]
    # ranked within its own fold: forests of different folds lean differently
    areas = [roc_auc_score(split[held], scores[held]) for _, held in folds.split(values, split)]
    n, m = len(one), len(other)
    error = float(np.sqrt((n + m + 1) / (12 * n * m)))
    area = float(np.mean(areas))
    return {"area": area, "error": error, "z": (area - 0.5) / error}


def shifted_columns(
    one: Float[np.ndarray, "n values"], other: Float[np.ndarray, "m values"], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the columns whose values differ between two splits, the most different first.

    Kolmogorov and Smirnov's test at 1 % in all: Holm's (1979) correction for the number of columns.

    Args:
      one, other: the splits.
      names: the columns'.
    """
    from scipy import stats

    tested = [
        (stats.ks_2samp(one[:, place], other[:, place]), place)
        for place in range(min(COLUMNS, one.shape[1]))
    ]
    tested.sort(key=lambda pair: pair[0].pvalue)
    found = []
    for rank, (result, place) in enumerate(tested):
        if result.pvalue * (len(tested) - rank) > 0.01:
            break
        found.append(
            {
                "name": str(names[place]),
                "statistic": float(result.statistic),
                "p": float(result.pvalue),
            }
        )
    return sorted(found, key=lambda row: -row["statistic"])


def label_shift(
    one: Int[np.ndarray, " n"], other: Int[np.ndarray, " m"], classes: int
) -> dict[str, float]:
    """Returns whether two splits have the same shares of the classes.

    Returns:
      ``p``, of a χ² test of homogeneity, and ``distance``, the total variation ``½ Σ |p - q|``.

    Example:
      >>> label_shift(np.array([0, 1] * 50), np.array([0] * 50), 2)["distance"]
      0.5
    """
    from scipy import stats

    counts = np.stack([np.bincount(one, minlength=classes), np.bincount(other, minlength=classes)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    seen = counts[:, counts.sum(axis=0) > 0]
    p = float(stats.chi2_contingency(seen).pvalue) if seen.shape[1] > 1 else 1.0
    return {"p": p, "distance": float(np.abs(shares[0] - shares[1]).sum() / 2)}


# --- what simple models say -----------------------------------------------------------------------


def giveaways(
    features: Float[np.ndarray, "n columns"],
    targets: Num[np.ndarray, " n"],
    names: Sequence[str],
    is_classes: bool,
    least: float,
) -> list[dict[str, Any]]:
    """Returns the columns that alone tell the target, each with its score out of fold.

    A tree on one column, held-out: the balanced accuracy of classes on a scale where chance is 0
    and certainty 1, or R² of a value.

    Args:
      features, targets: training examples.
      names: the columns'.
      is_classes: whether targets are classes.
      least: the score from which on a column counts.
    """
    from sklearn import metrics
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    some = sampled(len(targets), MOST)
    features, targets = features[some], targets[some]
    if is_classes:
        counts = np.bincount(targets)
        usable = counts[targets] >= FOLDS
        features, targets = features[usable], targets[usable]
        if len(np.unique(targets)) < 2:
            return []
        leaves = max(2, 2 * len(np.unique(targets)))
        tree = DecisionTreeClassifier(
            max_leaf_nodes=leaves, class_weight="balanced", random_state=0
        )
    else:
        tree = DecisionTreeRegressor(max_leaf_nodes=64, random_state=0)
    found = []
    for place in range(min(COLUMNS, features.shape[1])):
        column = features[:, place : place + 1]
        guesses = cross_val_predict(tree, column, targets, cv=FOLDS)
        if is_classes:
            score = metrics.balanced_accuracy_score(targets, guesses, adjusted=True)
        else:
            score = metrics.r2_score(targets, guesses)
        if score >= least:
            found.append({"name": str(names[place]), "score": float(score)})
    return sorted(found, key=lambda row: -row["score"])


def forest_score(
    train: Float[np.ndarray, "n values"],
    train_targets: Num[np.ndarray, " n"],
    other: Float[np.ndarray, "m values"],
    other_targets: Num[np.ndarray, " m"],
    is_classes: bool,
) -> float:
    """Returns what a random forest (Breiman, 2001) with its defaults reaches on another split.

    Returns:
      Its accuracy, or its mean squared error.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    some = sampled(len(train), MOST)
    train, other = reduced(train[some], other)
    kind = RandomForestClassifier if is_classes else RandomForestRegressor
    features = "sqrt" if is_classes else 1 / 3  # Breiman's own
    forest = kind(TREES, max_features=features, random_state=0, n_jobs=1)
    guesses = forest.fit(train, train_targets[some]).predict(other)
    if is_classes:
        return float(np.mean(guesses == other_targets))
    return float(np.mean((guesses - other_targets) ** 2))
