"""Labels that a model which has not seen them confidently takes for others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jdlopt.data.check.examples import SAMPLE, filled, sampled
from jdlopt.data.check.finding import NO_ROWS, Finding, Part
from jdlopt.data.combined_labels import combined, remedy
from jdlopt.data.dataset import Dataset, class_counts
from jdlopt.data.fields import DataFields

FOLDS = 3
LEAST = 50
"""Of fewer examples nothing is said."""
LEAST_AGREEMENT, LEAST_SKILL = 0.75, 0.5
"""Of the labels, that models must agree with for their doubt of others to say anything, and how far
that must be from chance (always the largest class, 0) to all of them (1)."""
SUREST, ALIKE = 0.25, 0.11
"""The part of the examples that models are surest of, and how much more often they may be right
there than on all of them if it is the labels that are wrong: 0.01 to 0.09 with a third of the
labels of digits and breast_cancer drawn anew, 0.16 to 0.34 with right labels of overlapping
classes."""
CONFIDENT = 0.8
"""A probability that is enough for doubt, however sure the model is of most examples."""
COMPONENTS = 50
"""Principal components that labels are predicted from, of images and signals."""
NEIGHBOURS = 15
TREE_CLASSES = 20
"""Boosted trees take too long for more classes."""
WORK, FEWEST_ROWS = 1 << 20, 1000
"""Rows × columns × trees at a time that boosting is given, some 5 seconds of it, but for the fewest
rows."""
FAR = 5.0
FAR_OFF = 8.0
"""Robust standard deviations between a value and its prediction from which on it is doubtful."""


def label_noise(
    features: Float[np.ndarray, "rows features"],
    targets: Int[np.ndarray, " rows"],
    rows: Int[np.ndarray, " rows"],
    class_names: Sequence[str],
    is_table: bool,
) -> list[Finding]:
    """Returns examples whose label cross-validated models together take for another, confidently.

    Confident learning (Northcutt, Jiang & Chuang, 2021): an example is doubtful if some other class
    has a probability out of fold of at least that class's threshold, which is the mean probability
    that its own examples have (but at most `CONFIDENT`), and a larger one than the given class.
    The probabilities are the mean of logistic regression's, nearest neighbours', and in a table
    boosted trees'. Where they are too weak for their doubt to say anything, that is the finding.

    Args:
      features: of training examples; NaN is missing.
      targets: their classes.
      rows: what each is called.
      class_names: the classes'.
      is_table: predict from the columns; otherwise from principal components.
    """
    counts = np.bincount(targets, minlength=len(class_names))
    usable = np.flatnonzero(counts[targets] >= FOLDS)
    trees = np.count_nonzero(counts) if is_table and targets.max() < TREE_CLASSES else 0
    chosen = usable[sampled(len(usable), _affordable(features.shape[1], int(trees)))]
    counts = np.bincount(targets[chosen], minlength=len(class_names))
    chosen = chosen[counts[targets[chosen]] >= FOLDS]
    kept, labels = np.unique(targets[chosen], return_inverse=True)
    if len(kept) < 2 or len(chosen) < LEAST:
        return []
    probabilities = _out_of_fold(features[chosen], labels, is_table)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    majority = float(np.bincount(labels).max() / len(labels))
    sure = _right_where_surest(probabilities, labels)
    if _are_weak(accuracy, majority, sure):
        return [_too_weak(accuracy, majority, len(labels))]
    doubtful, others = _doubtful(probabilities, labels)
    if not len(doubtful):
        return []
    names = [str(class_names[c]) for c in kept]
    matrix = np.zeros((len(kept), len(kept)), int)
    np.add.at(matrix, (labels[doubtful], others), 1)
    parts = []
    for pair in np.argsort(-matrix, axis=None, kind="stable")[: np.count_nonzero(matrix)]:
        given, suggested = divmod(int(pair), len(kept))
        some = doubtful[(labels[doubtful] == given) & (others == suggested)]
        name = f"{names[given]} → {names[suggested]}"
        parts.append(Part(name, rows[chosen][some], len(some), "given → suggested"))
    share = len(doubtful) / len(labels)
    return [
        Finding(
            kind="label_noise",
            severity="warning" if min(share, 1 - sure) > 0.02 else "note",
            problem="doubtful labels",
            text=(
                f"{len(doubtful):,} of {len(labels):,} training examples that were looked at "
                f"({share:.1%}) look more like another class to models that have not seen them; "
                f"these agree with {accuracy:.1%} of the labels, and with {sure:.1%} where they "
                "are surest."
            ),
            count=len(doubtful),
            of=len(labels),
            unit="examples",
            advice=(
                "Look at the first of each and correct them; a loss that trusts labels less helps "
                "with the rest:"
            ),
            parts=tuple(parts),
            numbers={
                "agreement": accuracy,
                "surest": sure,
                **({"matrix": matrix.tolist(), "names": names} if len(kept) <= 30 else {}),
            },
        )
    ]


def _affordable(features: int, trees: int) -> int:
    """Returns how many rows models are fitted on, where boosting fits so many trees at a time.

    Example:
      >>> _affordable(30, 2), _affordable(700, 2), _affordable(30, 20), _affordable(50, 0)
      (10000, 1000, 1747, 10000)
    """
    return min(SAMPLE, max(FEWEST_ROWS, WORK // max(1, features * trees)))


def _are_weak(accuracy: float, majority: float, sure: float) -> bool:
    """Says whether models know too little of the classes for their doubt to say anything.

    Models that agree with few labels are weak, unless they agree with as few where they are surest:
    wrong labels lie anywhere, a weak model's errors where it is unsure.
    """
    if accuracy < majority + LEAST_SKILL * (1 - majority):
        return True
    return accuracy < LEAST_AGREEMENT and sure - accuracy > ALIKE


def _right_where_surest(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns with how many labels models agree where they are surest: where no classes overlap."""
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")
    surest = surest[: max(1, int(SUREST * len(labels)))]
    return float((probabilities[surest].argmax(axis=1) == labels[surest]).mean())


def _doubtful(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the doubtful examples, the most doubtful first, and what each looks like instead."""
    places = np.arange(len(labels))
    own = probabilities[places, labels]
    counts = np.bincount(labels)
    thresholds = np.minimum(np.bincount(labels, own) / counts, CONFIDENT)
    confident = np.where(probabilities >= thresholds, probabilities, 0.0)
    confident[places, labels] = 0.0
    margin = confident.max(axis=1) - own
    found = np.flatnonzero(margin > 0)
    found = found[np.argsort(-margin[found], kind="stable")]
    return found, confident[found].argmax(axis=1)


def _too_weak(accuracy: float, majority: float, count: int) -> Finding:
    return Finding(
        kind="label_noise_unknown",
        severity="note",
        problem="whether labels are right can't be told",
        text=(
            f"Simple models agree with {accuracy:.1%} of the labels of {count:,} training "
            f"examples that they have not seen (always the largest class: {majority:.1%}); their "
            "doubts say nothing of them."
        ),
        count=0,
        of=count,
        unit="examples",
        config="",
        advice="Look at the examples that a trained model is most wrong about: `jdlopt report`.",
    )


def _out_of_fold(
    features: np.ndarray, labels: np.ndarray, is_table: bool
) -> Float[np.ndarray, "rows classes"]:
    """Returns the mean probabilities of models that err differently, each example held out."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    flat = _bounded(features) if is_table else _components(features)
    neighbours = min(NEIGHBOURS, len(labels) // 2)
    models: list[tuple[Any, np.ndarray]] = [
        (LogisticRegression(max_iter=200), flat),
        (KNeighborsClassifier(neighbours), flat),
    ]
    if is_table and labels.max() < TREE_CLASSES:
        trees = HistGradientBoostingClassifier(
            learning_rate=0.15, max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=0
        )
        models.append((trees, features))
    made = [
        _quiet(partial(cross_val_predict, model, some, labels, cv=folds, method="predict_proba"))
        for model, some in models
    ]
    return np.mean(made, axis=0)


def _bounded(features: np.ndarray) -> np.ndarray:
    """A table's rows for models that outliers would rule: on one scale, and within `FAR` of it."""
    values = filled(features)
    first, middle, third = np.percentile(values, (25, 50, 75), axis=0)
    deviation = values.std(axis=0)
    spread = np.where(third > first, third - first, np.where(deviation > 0, deviation, 1.0))
    return np.clip((values - middle) / spread, -FAR, FAR)


def _components(features: np.ndarray) -> np.ndarray:
    """The principal components of images or signals, on one scale."""
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, features.shape[1], len(features) // 2)
    values = PCA(count, random_state=0).fit_transform(features)
    return values / np.maximum(values.std(axis=0), 1e-12)


def _quiet(compute: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that did not end is as good as any for this
        return compute()


def target_noise(
    features: Float[np.ndarray, "rows features"],
    targets: Float[np.ndarray, " rows"],
    rows: Int[np.ndarray, " rows"],
) -> list[Finding]:
    """Returns examples whose value is very far from what boosted trees predict out of fold.

    Args:
      features: of training examples; NaN is missing.
      targets: their values.
      rows: what each is called.
    """
    if len(targets) < LEAST:
        return []
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    chosen = sampled(len(targets), _affordable(features.shape[1], 1))
    model = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=0
    )
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    values = targets[chosen].astype(np.float64)
    residuals = values - _quiet(
        lambda: cross_val_predict(model, features[chosen], values, cv=folds)
    )
    away = np.abs(residuals - np.median(residuals))
    spread = 1.4826 * float(np.median(away))
    far = np.flatnonzero(away > FAR_OFF * spread) if spread > 0 else NO_ROWS
    if not len(far):
        return []
    far = far[np.argsort(-away[far], kind="stable")]
    return [
        Finding(
            kind="target_noise",
            severity="note",
            problem="values far from their prediction",
            text=(
                f"{len(far):,} of {len(chosen):,} training examples have a value more than "
                f"{FAR_OFF:g} robust standard deviations from what a model that has not seen them "
                "says."
            ),
            count=len(far),
            of=len(chosen),
            unit="examples",
            advice=(
                "Look at the first of them; a loss that large errors don't rule helps with the "
                "rest:"
            ),
            parts=(Part("farthest first", rows[chosen][far], len(far)),),
        )
    ]


def label_findings(dataset: Dataset, fields: DataFields) -> list[Finding]:
    """Returns labels that look like several in one: a wrong, or no, ``data.label_delimiter``."""
    names = dataset.spec.class_names
    if not names or (fields.label_delimiter is None and dataset.spec.task != "classification"):
        return []
    counts = dict(zip(names, class_counts(dataset).tolist(), strict=True))
    size = dataset.sizes["train"]
    found = combined(counts, size)
    if found is None:
        return []
    advice, line = remedy(found, fields.label_delimiter), ""
    if found.separator is not None and fields.label_delimiter is None:
        advice, line = "Split them:", f"data.label_delimiter={found.separator!r}"
    held = "nearly every example has a label of its own"
    if found.separator is not None:
        held = f"{found.examples:,} of {size:,} training examples have a label with"
        held += f" {found.separator!r} in it, which is taken for one"
    parts = tuple(Part(label, NO_ROWS, counts[label]) for label in found.labels[:100])
    return [
        Finding(
            kind="combined_labels",
            severity="warning",
            problem="labels that look like several in one",
            text=f"There are {len(names):,} labels; {held}.",
            count=found.examples,
            of=size,
            unit="examples",
            config=line,
            advice=advice,
            parts=parts,
        )
    ]
