"""Metrics of a whole split on the host, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

CALIBRATION_BINS = 15

Value = float | list[Any]


class Split(NamedTuple):
    """What all batches gave: sums as numbers, per-example arrays without padding.

    Attributes:
      size: examples.
      num_classes: classes or labels.
      leaves: by name.
      positive: the number of the positive class of two.
      class_names: of the classes or labels.
      told: targets, or what is written in their place → texts; None where they are none.
    """

    size: int
    num_classes: int
    leaves: dict[str, Any]
    positive: int = 1
    class_names: tuple[str, ...] = ()
    told: Callable[[np.ndarray], list[str]] | None = None


def split_of(targets: np.ndarray, guesses: np.ndarray, num_classes: int) -> Split:
    """Returns what `tally` and `confusion` count: classes, or labels [n, labels] as booleans."""
    return Split(len(targets), num_classes, {"classes": targets, "predicted": guesses})


def confusion(split: Split) -> Int[np.ndarray, "classes classes"]:
    """Returns counts by true class (row) and predicted class (column)."""
    classes = split.num_classes
    cells = split.leaves["classes"].astype(np.int64) * classes + split.leaves["predicted"]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def tally(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns of each class or label how often it was right, true and predicted."""
    classes, predicted = split.leaves["classes"], split.leaves["predicted"]
    if classes.ndim == 2:
        return (classes & predicted).sum(axis=0), classes.sum(axis=0), predicted.sum(axis=0)
    count = partial(np.bincount, minlength=split.num_classes)
    return count(classes[classes == predicted]), count(classes), count(predicted)


def ratio(numerator: object, denominator: object) -> np.ndarray:
    """Divides; 0 where the denominator is 0, as scikit-learn's ``zero_division`` does."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def precision(hits: object, actual: object, predicted: object) -> np.ndarray:
    """Returns the share of the predictions of a class that are right."""
    return ratio(hits, predicted)


def recall(hits: object, actual: object, predicted: object) -> np.ndarray:
    """Returns the share of the examples of a class that are found."""
    return ratio(hits, actual)


def f1(hits: Any, actual: Any, predicted: Any) -> np.ndarray:
    """Returns the harmonic mean of precision and recall."""
    return ratio(2 * hits, actual + predicted)


def averaged(score: Callable[..., np.ndarray], average: str) -> Callable[[Split], Value]:
    """Returns a score of hits, true and predicted counts, under one of the usual averages.

    ``macro`` is over the classes that occur as a target or as a prediction, or over all labels;
    ``micro`` over all decisions together; ``per_class`` and ``per_label`` are a list over all.
    """

    def compute(split: Split) -> Value:
        hits, actual, predicted = tally(split)
        if average == "micro":
            return float(score(hits.sum(), actual.sum(), predicted.sum()))
        scores = score(hits, actual, predicted)
        if average != "macro":
            return scores.tolist()
        counted = (actual + predicted) > 0 if split.leaves["classes"].ndim == 1 else slice(None)
        return float(scores[counted].mean())

    return compute


def of_positive(score: Callable[..., np.ndarray]) -> Callable[[Split], float]:
    """Returns a score of hits, true and predicted counts of the positive class of two."""

    def compute(split: Split) -> float:
        return float(score(*(counts[split.positive] for counts in tally(split))))

    return compute


def balanced_accuracy(split: Split) -> float:
    """Returns the mean recall of the classes that occur."""
    hits, actual, _ = tally(split)
    return float(ratio(hits, actual)[actual > 0].mean())


def one_vs_rest(score: Callable[..., float], split: Split) -> float:
    """Scores the positive class of two, or each class against the rest, or each label, averaged."""
    probabilities, classes = split.leaves["probabilities"], split.leaves["classes"]
    if classes.ndim == 2:
        pairs = zip(classes.T, probabilities.T, strict=True)
        return float(np.mean([score(positive, scores) for positive, scores in pairs]))
    columns = [split.positive] if split.num_classes == 2 else range(split.num_classes)
    return float(np.mean([score(classes == each, probabilities[:, each]) for each in columns]))


def binary_roc_auc(positive: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> float:
    """Returns the chance that a positive outranks a negative, ties counting half."""
    positives = int(positive.sum())
    negatives = positive.size - positives
    if positives == 0 or negatives == 0 or np.isnan(scores).any():
        return float("nan")
    from scipy.stats import rankdata  # takes a second to import

    above = rankdata(scores)[positive].sum() - positives * (positives + 1) / 2
    return above / (positives * negatives)


def binary_average_precision(
    positive: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]
) -> float:
    """Returns ``sum_k (recall_k - recall_(k-1)) precision_k`` over the distinct thresholds."""
    if np.isnan(scores).any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(positive[order])[last_of_tie]
    precision = hits / (np.flatnonzero(last_of_tie) + 1)
    return float(ratio(np.sum(np.diff(hits, prepend=0) * precision), positive.sum()))


def label_ranking_average_precision(split: Split) -> float:
    """Returns how purely an example's labels are ranked above the others, over examples.

    Of each label that an example has, the share of its labels among all that are ranked as high or
    higher; 1 for an example with no label or all of them (Schapire and Singer, 2000).
    """
    scores, there = split.leaves["probabilities"].astype(np.float64), split.leaves["classes"]
    if np.isnan(scores).any():
        return float("nan")
    from scipy.stats import rankdata  # takes a second to import

    among_all = rankdata(-scores, method="max", axis=1)
    among_its = rankdata(np.where(there, -scores, np.inf), method="max", axis=1)
    count = there.sum(axis=1)
    shares = np.where(there, among_its / among_all, 0.0).sum(axis=1) / np.maximum(count, 1)
    trivial = (count == 0) | (count == there.shape[1])
    return float(np.where(trivial, 1.0, shares).mean())


def log_loss(split: Split) -> float:
    """Returns the mean of ``-log p``, p the probability of the true class."""
    probabilities = split.leaves["at_target"]
    eps = float(np.finfo(probabilities.dtype).eps)
    return float(-np.log(np.clip(probabilities.astype(np.float64), eps, 1 - eps)).mean())


def expected_calibration_error(split: Split) -> float:
    """Returns the mean gap of confidence and accuracy, over bins of confidence."""
    confidence = split.leaves["confidence"].astype(np.float64)
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    gaps = (split.leaves["likeliest"] == split.leaves["classes"]) - confidence
    per_bin = np.bincount(np.searchsorted(inner_edges, confidence), weights=gaps)
    return float(np.abs(per_bin).sum() / split.size)


def _errors(split: Split) -> Float[np.ndarray, "n outputs"]:
    return split.leaves["outputs"].astype(np.float64) - split.leaves["targets"].astype(np.float64)


def each_of(score: Callable[[Split], np.ndarray]) -> Callable[[Split], list[float]]:
    """Returns a score of each output, as a list."""
    return lambda split: score(split).tolist()


def mean_of(score: Callable[[Split], np.ndarray]) -> Callable[[Split], float]:
    """Returns a score averaged over the outputs."""
    return lambda split: float(score(split).mean())


def mse(split: Split) -> Float[np.ndarray, " outputs"]:
    """Returns the mean squared error of each output."""
    return np.square(_errors(split)).mean(axis=0)


def rmse(split: Split) -> Float[np.ndarray, " outputs"]:
    """Returns the root of the mean squared error of each output."""
    return np.sqrt(mse(split))


def mae(split: Split) -> Float[np.ndarray, " outputs"]:
    """Returns the mean absolute error of each output."""
    return np.abs(_errors(split)).mean(axis=0)


def r2(split: Split) -> Float[np.ndarray, " outputs"]:
    """Returns the share of each target's variance that is explained."""
    targets = split.leaves["targets"].astype(np.float64)
    if split.size < 2:
        return np.full(targets.shape[1], np.nan)
    residual = np.square(_errors(split)).sum(axis=0)
    total = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    constant = np.where(residual == 0, 1.0, 0.0)
    explained = 1 - residual / np.where(total == 0, 1.0, total)
    return np.where(total == 0, constant, explained)
