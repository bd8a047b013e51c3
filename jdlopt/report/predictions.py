"""What a run's best checkpoint predicts, as figures and tables: what its task says it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np

from jdlopt.report import figures
from jdlopt.report.balance import balance, interval
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Figure, Table
from jdlopt.report.worst import worst
from jdlopt.tasks import find_task
from jdlopt.tasks.multilabel import THRESHOLD

MATRIX_CLASSES = 40
"""A confusion matrix of more classes is not drawn."""
CONFUSIONS = 10
"""The most frequent confusions that are listed."""
OUTPUTS = 6
"""Outputs of a regression that have figures."""
CURVE_CLASSES = 10
"""Of more classes, those with the smallest area under the ROC curve have curves."""
MOST_ROWS = 40
"""Classes, labels or outputs that have a row; of more, the worst."""


def shown(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of predictions, by what the task says it shows."""
    made: dict[str, object] = dict.fromkeys(
        ("confusion", "thresholds", "values", "each", "balance")
    )
    shows = find_task(outcome.spec.task).shows
    for name, part in PARTS.items():
        if name in shows:
            made |= part(outcome)
    return made | worst(outcome)


def _classes(outcome: Outcome) -> dict[str, object]:
    """One class an example: what is taken for what, and how good the probabilities are."""
    from sklearn import metrics

    assert outcome.probabilities is not None
    names = outcome.spec.class_names
    guesses = outcome.probabilities.argmax(axis=-1)
    matrix = metrics.confusion_matrix(outcome.targets, guesses, labels=range(len(names)))
    pairs = figures.confusions(matrix, names)[:CONFUSIONS]
    header = ["true", "predicted", "examples"]
    small = len(names) <= MATRIX_CLASSES
    binary = len(names) == 2
    of_class = {c: outcome.targets == c for c in ([1] if binary else range(len(names)))}
    every = range(len(names))
    return {
        "balance": balance(outcome, guesses),
        "confusion": {
            "figure": figures.confusion("confusions", matrix, names) if small else None,
            "table": Table("Most frequent confusions", header, pairs) if pairs else None,
        },
        "each": _by_name(
            "class",
            names,
            np.stack([outcome.targets == c for c in every], axis=1),
            np.stack([guesses == c for c in every], axis=1),
        ),
        "thresholds": [
            *_curves(outcome, of_class, "each class against the rest", single=binary),
            _reliability(outcome.probabilities.max(axis=-1), guesses == outcome.targets),
        ],
    }


def _labels(outcome: Outcome) -> dict[str, object]:
    """Any number of labels: each of them by itself."""
    assert outcome.probabilities is not None
    there = outcome.targets > 0
    found = outcome.probabilities > THRESHOLD
    of_label = {place: there[:, place] for place in range(there.shape[1])}
    confidence = np.maximum(outcome.probabilities, 1 - outcome.probabilities)
    return {
        "each": _by_name("label", outcome.spec.class_names, there, found, THRESHOLD),
        "thresholds": [
            *_curves(outcome, of_label, "each label"),
            _reliability(confidence.ravel(), (found == there).ravel()),
        ],
    }


def _by_name(
    what: str,
    names: tuple[str, ...],
    there: np.ndarray,
    found: np.ndarray,
    threshold: float | None = None,
) -> Table:
    """Returns support, precision, recall and F1 of each class or label, the worst first.

    Args:
      what: ``class`` or ``label``.
      names: theirs.
      there: where each is true, [n, names].
      found: where each is predicted.
      threshold: the probability above which it is, where there is one for each.
    """
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(there, found, average=None, zero_division=np.nan)
    precision, recall, f1, support = (np.atleast_1d(one) for one in scores)
    order = np.argsort(np.nan_to_num(f1, nan=2.0), kind="stable")
    rows: list[list[object]] = []
    for place in order[:MOST_ROWS].tolist():
        found_of = int((there[:, place] & found[:, place]).sum())
        recalled = (float(recall[place]), interval(found_of, int(support[place])))
        row: list[object] = [names[place], int(support[place]), float(precision[place])]
        row += [recalled, float(f1[place])]
        rows.append(row if threshold is None else [*row, threshold])
    header = [what, "support", "precision", "recall", "F1"]
    caption = f"Each {what}, the lowest F1 first; recall with its 95 % interval"
    if len(names) > MOST_ROWS:
        caption = f"The {MOST_ROWS} of {len(names)} {_PLURALS[what]} with the lowest F1"
    if threshold is not None:
        header.append("threshold")
    return Table(caption, header, rows)


_PLURALS = {"class": "classes", "label": "labels"}


def _curves(
    outcome: Outcome, positives: Mapping[int, np.ndarray], which: str, single: bool = False
) -> list[Figure]:
    """Returns the ROC and the precision by recall of some classes or labels.

    Args:
      outcome: the probabilities.
      positives: the classes or labels, and which examples are of each.
      which: says whose curves these are.
      single: whether there is one only, which the captions name.
    """
    from sklearn import metrics

    assert outcome.probabilities is not None
    names, found = outcome.spec.class_names, []
    for index, positive in positives.items():
        if not positive.any() or positive.all():
            continue
        scores = np.nan_to_num(outcome.probabilities[:, index])
        found.append((metrics.roc_auc_score(positive, scores), names[index], positive, scores))
    found.sort(key=lambda one: one[0])
    roc, pr = [], []
    for area, name, positive, scores in found[:CURVE_CLASSES]:
        false, true, _ = metrics.roc_curve(positive, scores)
        roc.append((f"{name}: {area:.3f}", false, true))
        precision, recall, _ = metrics.precision_recall_curve(positive, scores)
        mean = metrics.average_precision_score(positive, scores)
        pr.append((f"{name}: {mean:.3f}", recall[::-1], precision[::-1]))
    if not roc:
        return []
    if len(found) > CURVE_CLASSES:
        which = f"the {CURVE_CLASSES} of {len(names)} with the smallest area"
    first, second = f"ROC and the area under it, {which}", f"Precision by recall, {which}"
    if single:
        first, second = (
            f"{words} of {one[0][0]}" for words, one in (("ROC, area", roc), ("PR, mean", pr))
        )
    axes = ("false positive rate", "true positive rate")
    return [
        figures.unit_square("roc", first, roc, axes, diagonal=True),
        figures.unit_square("pr", second, pr, ("recall", "precision")),
    ]


def _reliability(confidence: np.ndarray, right: np.ndarray) -> Figure:
    places = np.minimum(9, (confidence * 10).astype(int))
    bins = [places == index for index in range(10) if (places == index).any()]
    x, y = ([float(values[one].mean()) for one in bins] for values in (confidence, right))
    return figures.unit_square(
        "reliability",
        "Calibration: confidence against accuracy, in tenths",
        [("validation", x, y)],
        ("confidence", "accuracy"),
        diagonal=True,
        markers=True,
    )


def _values(outcome: Outcome) -> dict[str, object]:
    """Numbers: each output's predicted against true values, and of several how good each is."""
    count = len(outcome.targets)
    targets = outcome.targets.reshape(count, -1).astype(np.float64)
    predicted = outcome.outputs.reshape(count, -1).astype(np.float64)
    names = outcome.spec.target_names or tuple(str(i) for i in range(targets.shape[1]))
    several = targets.shape[1] > 1
    made: list[Figure] = []
    for place, (true, guess) in enumerate(islice(zip(targets.T, predicted.T), OUTPUTS)):
        which = f" of output {names[place]}" if several else ""
        made += [
            figures.scatter(f"predicted-{place}", f"Predicted against true{which}",
                            true, guess, ("true", "predicted"), True),
            figures.scatter(f"residuals-{place}", f"Residual against prediction{which}",
                            guess, true - guess, ("predicted", "true - predicted"), False),
        ]  # fmt: skip
    return {"values": made, "each": _by_output(names, targets, predicted) if several else None}


def _by_output(names: tuple[str, ...], targets: np.ndarray, predicted: np.ndarray) -> Table:
    """Returns RMSE, MAE and R² of each output, the lowest R² first, and their means."""
    errors = predicted - targets
    rmse, mae = np.sqrt(np.mean(errors**2, axis=0)), np.mean(np.abs(errors), axis=0)
    spread = np.var(targets, axis=0)
    unknown = np.full(len(spread), np.nan)  # of an output that is always the same
    r2 = 1 - np.divide(np.mean(errors**2, axis=0), spread, out=unknown, where=spread > 0)
    order = np.argsort(np.nan_to_num(r2, nan=2.0), kind="stable")
    rows: list[list[object]] = [
        [names[place], float(rmse[place]), float(mae[place]), float(r2[place])]
        for place in order[:MOST_ROWS].tolist()
    ]
    rows.append(["mean of all", *(float(np.mean(one)) for one in (rmse, mae, r2))])
    caption = "Each output, the lowest R² first"
    if len(names) > MOST_ROWS:
        caption = f"The {MOST_ROWS} of {len(names)} outputs with the lowest R²"
    return Table(caption, ["output", "RMSE", "MAE", "R²"], rows)


PARTS: Mapping[str, Callable[[Outcome], dict[str, object]]] = {
    "classes": _classes,
    "labels": _labels,
    "values": _values,
}
"""What is shown of what a task says it shows, of `jdlopt.tasks.SHOWN`."""
