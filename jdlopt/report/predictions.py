"""What a run's best checkpoint predicts, as figures and tables: what its task says it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from jdlopt.metrics import MANY_CLASSES, scores
from jdlopt.report import entities, figures
from jdlopt.report.balance import balance, interval
from jdlopt.report.masks import masks
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Figure, Table
from jdlopt.report.pairs import neighbours
from jdlopt.report.texts import texts
from jdlopt.report.transcripts import transcripts
from jdlopt.report.worst import worst
from jdlopt.tasks import find_task

CONFUSIONS = 10
"""The most frequent confusions that are listed."""
OUTPUTS = 6
"""Outputs of a regression that have figures."""
CURVE_CLASSES = 10
"""Of more classes, those with the smallest area under the ROC curve have curves."""
MOST_ROWS = 40
"""Classes, labels or outputs that have a row; of more, the worst, and `BEST_ROWS` of the best."""
BEST_ROWS = 5


def shown(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of predictions, by what the task says it shows."""
    made: dict[str, object] = dict.fromkeys(
        (
            *("confusion", "thresholds", "values", "each", "balance", "entities", "masks"),
            *("texts", "transcripts", "neighbours", "continuations"),
        )
    )
    shows = find_task(outcome.spec.task).shows
    for name, part in PARTS.items():
        if name in shows:
            made |= part(outcome)
    return made | worst(outcome)


def _classes(outcome: Outcome) -> dict[str, object]:
    """One class an example: what is taken for what, and how good the probabilities are."""
    names, targets = outcome.spec.class_names, outcome.targets
    guesses, confidence = outcome.guesses
    right = guesses == targets
    split = scores.split_of(targets, guesses, len(names))
    said = _Scores.of(*scores.tally(split))
    pairs = figures.confusions(targets, guesses, names)
    shown = Table("Most frequent confusions", ["true", "predicted", "examples"], pairs[:CONFUSIONS])
    if len(names) == 2:
        chosen, which = [outcome.spec.decision.positive], ""
    else:
        chosen, which = _for_curves(said, "each class against the rest")
    curves = []
    if outcome.probabilities is not None:
        positives = {place: targets == place for place in chosen}
        curves = _curves(outcome, positives, which, single=len(names) == 2)
    return {
        "balance": balance(outcome, split),
        "confusion": {
            "figure": figures.confusion("confusions", scores.confusion(split), names)
            if len(names) <= figures.MATRIX_CLASSES
            else None,
            "table": shown if pairs else None,
        },
        "each": _by_name("class", names, said),
        "thresholds": [*curves, _reliability(confidence, right)],
    }


class _Scores(NamedTuple):
    """Of each class or label how good its predictions are; NaN where that is not defined."""

    hits: np.ndarray
    support: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @staticmethod
    def of(hits: np.ndarray, there: np.ndarray, found: np.ndarray) -> _Scores:
        """Returns the scores of how often each was right, is true, and was predicted."""

        def share(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
            return np.divide(of, whole, out=np.full(len(whole), np.nan), where=whole > 0)

        return _Scores(
            hits, there, share(hits, found), share(hits, there), share(2 * hits, there + found)
        )

    def order(self) -> np.ndarray:
        """Returns the places, the lowest F1 first, and of equals those with most examples."""
        return np.lexsort((-self.support, np.nan_to_num(self.f1, nan=2.0)))


def _for_curves(said: _Scores, which: str) -> tuple[list[int], str]:
    """Returns the classes or labels that curves are computed of, and which these are."""
    if len(said.f1) <= MANY_CLASSES:
        return list(range(len(said.f1))), which
    order = [place for place in said.order().tolist() if said.support[place]]
    return order[:CURVE_CLASSES], f"the {CURVE_CLASSES} of {len(said.f1):,} with the lowest F1"


def _labels(outcome: Outcome) -> dict[str, object]:
    """Any number of labels: each of them by itself."""
    assert outcome.probabilities is not None
    there = outcome.targets > 0
    spec = outcome.spec
    found = spec.decision.labels(outcome.probabilities)
    said = _Scores.of(*scores.tally(scores.split_of(there, found, spec.num_classes)))
    chosen, which = _for_curves(said, "each label")
    of_label = {place: there[:, place] for place in chosen}
    confidence = np.maximum(outcome.probabilities, 1 - outcome.probabilities)
    return {
        "each": _by_name(
            "label", spec.class_names, said, spec.decision.of_labels(spec.num_classes)
        ),
        "thresholds": [
            *_curves(outcome, of_label, which),
            _reliability(confidence.ravel(), (found == there).ravel()),
        ],
    }


def _by_name(
    what: str,
    names: tuple[str, ...],
    said: _Scores,
    thresholds: tuple[float, ...] | None = None,
) -> Table:
    """Returns support, precision, recall and F1 of each class or label, the worst first.

    Args:
      what: ``class`` or ``label``.
      names: theirs.
      said: how good its predictions are.
      thresholds: the probability above which each is predicted, where there is one.
    """
    order = said.order()
    told = f"Each {what}, the lowest F1 first"
    if len(names) > MOST_ROWS:
        known = order[~np.isnan(said.f1[order])]
        best = known[max(MOST_ROWS - BEST_ROWS, len(known) - BEST_ROWS) :]
        order = np.concatenate([order[: MOST_ROWS - len(best)], best])
        told = (
            f"The {MOST_ROWS - len(best)} of {len(names):,} {_PLURALS[what]} with the lowest F1, "
            f"and the {len(best)} with the highest"
        )
    rows: list[list[object]] = []
    for place in order.tolist():
        support, hits = int(said.support[place]), int(said.hits[place])
        row: list[object] = [names[place], support, float(said.precision[place])]
        row += [(float(said.recall[place]), interval(hits, support)), float(said.f1[place])]
        rows.append(row if thresholds is None else [*row, thresholds[place]])
    header = [what, "support", "precision", "recall", "F1"]
    header += [] if thresholds is None else ["threshold"]
    return Table(f"{told}; recall with its 95 % interval", header, rows)


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
    if len(found) > CURVE_CLASSES and len(positives) == len(names):
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
    split = scores.Split(len(targets), 0, {"outputs": predicted, "targets": targets})
    rmse, mae, r2 = scores.rmse(split), scores.mae(split), scores.r2(split)
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
    "entities": entities.shown,
    "masks": masks,
    "texts": texts,
    "transcripts": transcripts,
    "pairs": neighbours,
    "continuations": lambda outcome: {"continuations": outcome.samples},
}
"""What is shown of what a task says it shows, of `jdlopt.tasks.SHOWN`."""
