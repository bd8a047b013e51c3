"""What a run's best checkpoint predicts, as figures, tables and pictures."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np

from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.report import figures
from jdlopt.report.examples import drawer
from jdlopt.report.page import Figure, Table, number

WORST = 12
"""Examples with the largest loss that are shown."""
FEATURES = 12
"""Inputs of a table's example that are shown."""
MATRIX_CLASSES = 40
"""A confusion matrix of more classes is not drawn."""
CONFUSIONS = 10
"""The most frequent confusions that are listed."""
OUTPUTS = 6
"""Outputs of a regression that are shown."""
CURVE_CLASSES = 10
"""Of more classes, those with the smallest area under the ROC curve have curves."""


class Outcome(NamedTuple):
    """What the best checkpoint says of the validation split.

    Attributes:
      inputs: raw, as the data holds them.
      targets: classes [n], labels of 0 and 1 [n, labels], or values [n] or [n, outputs].
      outputs: the model's.
      probabilities: [n, classes or labels], or None for a regression.
      losses: per example.
      spec: what is known of the data.
    """

    inputs: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    probabilities: np.ndarray | None
    losses: np.ndarray
    spec: DataSpec


def shown(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of single examples."""
    made: dict[str, object] = dict.fromkeys(
        ("confusion", "thresholds", "values", "pictures", "worst")
    )
    made |= _values(outcome) if outcome.probabilities is None else _classes(outcome)
    return made | _worst(outcome)


def _classes(outcome: Outcome) -> dict[str, object]:
    from sklearn import metrics

    assert outcome.probabilities is not None
    names = [str(name) for name in outcome.spec.class_names or outcome.spec.target_names]
    several = outcome.targets.ndim == 2
    made: dict[str, object] = {}
    if several:
        right = (outcome.probabilities >= 0.5) == outcome.targets
        confidence = np.maximum(outcome.probabilities, 1 - outcome.probabilities)
    else:
        guesses = outcome.probabilities.argmax(axis=-1)
        right, confidence = guesses == outcome.targets, outcome.probabilities.max(axis=-1)
        matrix = metrics.confusion_matrix(outcome.targets, guesses, labels=range(len(names)))
        pairs = figures.confusions(matrix, names)[:CONFUSIONS]
        header = ["true", "predicted", "examples"]
        small = len(names) <= MATRIX_CLASSES
        made["confusion"] = {
            "figure": figures.confusion("confusions", matrix, names) if small else None,
            "table": Table("Most frequent confusions", header, pairs) if pairs else None,
        }
    found = []
    for index in [1] if len(names) == 2 and not several else range(len(names)):
        positive = outcome.targets[:, index] > 0 if several else outcome.targets == index
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
    curves = []
    if roc:
        which = "each label" if several else "each class against the rest"
        if len(found) > CURVE_CLASSES:
            which = f"the {CURVE_CLASSES} of {len(names)} with the smallest area"
        first, second = f"ROC and the area under it, {which}", f"Precision by recall, {which}"
        if len(names) == 2 and not several:
            first, second = (
                f"{words} of {one[0][0]}" for words, one in (("ROC, area", roc), ("PR, mean", pr))
            )
        axes = ("false positive rate", "true positive rate")
        curves += [
            figures.unit_square("roc", first, roc, axes, diagonal=True),
            figures.unit_square("pr", second, pr, ("recall", "precision")),
        ]
    made["thresholds"] = [*curves, _reliability(confidence.ravel(), right.ravel())]
    return made


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
    count = len(outcome.targets)
    columns = zip(outcome.targets.reshape(count, -1).T, outcome.outputs.reshape(count, -1).T)
    made = []
    for place, (true, predicted) in enumerate(islice(columns, OUTPUTS)):
        names = outcome.spec.target_names or range(place + 1)
        which = f" of output {names[place]}" if outcome.targets.ndim == 2 else ""
        made += [
            figures.scatter(f"predicted-{place}", f"Predicted against true{which}",
                            true, predicted, ("true", "predicted"), True),
            figures.scatter(f"residuals-{place}", f"Residual against prediction{which}",
                            predicted, true - predicted, ("predicted", "true - predicted"), False),
        ]  # fmt: skip
    return {"values": made}


def _worst(outcome: Outcome) -> dict[str, object]:
    order = np.argsort(-np.nan_to_num(outcome.losses, nan=np.inf))[:WORST]
    worst = [(int(index), *_said(outcome, int(index))) for index in order]
    header = ["example", "true", "predicted", "loss"]
    if not isinstance(outcome.spec.inputs, InputSpec):
        return {"worst": Table("By loss", header, [[str(index), *said] for index, *said in worst])}
    shape = outcome.spec.input.shape
    draw = drawer(shape)
    if draw is not None:
        joined = "predicted" if outcome.probabilities is None else "predicted as"
        cards = []
        for index, true, guess, loss in worst:
            png, smooth = draw(outcome.inputs[index])
            words = f"{true}, {joined} {guess}"
            cards.append({"alternative": f"validation example {index}: {words}", "png": png,
                          "smooth": smooth, "caption": f"{words}; loss {loss}"})  # fmt: skip
        return {"pictures": cards}
    size = int(np.prod(shape))
    names = outcome.spec.input.feature_names or [f"input {i}" for i in range(size)]
    features = [str(name) for name in names][:FEATURES]
    inputs = outcome.inputs.reshape(len(outcome.inputs), -1)[:, : len(features)].astype(float)
    rows = [
        [str(index), true, guess, loss, *inputs[index].tolist()]
        for index, true, guess, loss in worst
    ]
    more = f", with the first {FEATURES} of {size} inputs" if size > len(features) else ""
    return {"worst": Table(f"By loss{more}", [*header, *features], rows)}


def _said(outcome: Outcome, index: int) -> tuple[str, str, str]:
    """Returns the true target, the predicted one and the loss of an example, in words."""
    targets, loss = outcome.targets[index], number(float(outcome.losses[index]))
    if outcome.probabilities is None:
        values = targets, outcome.outputs[index]
        true, guess = (", ".join(map(number, np.ravel(v)[:OUTPUTS].tolist())) for v in values)
        return true, guess, loss
    names, found = (
        outcome.spec.class_names or outcome.spec.target_names,
        outcome.probabilities[index],
    )
    if outcome.targets.ndim == 2:
        chosen = np.flatnonzero(targets), np.flatnonzero(found >= 0.5)
        true, guess = (", ".join(str(names[place]) for place in some) or "none" for some in chosen)
        return true, guess, loss
    best = int(found.argmax())
    return str(names[int(targets)]), f"{names[best]} ({float(found[best]):.0%})", loss
