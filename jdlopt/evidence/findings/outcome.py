"""Findings about what became of a run: fit, calibration, classes, and how long it took for it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jdlopt.evidence.findings.data import target_scale
from jdlopt.evidence.findings.finding import Finding, Record, level, setting, share, some
from jdlopt.evidence.techniques.removal import AUGMENTED, DROPOUT, PENALTIES, SMOOTHING, numbers_of

LOST = (0.1, 0.5)
"""Of what training won on the validation loss, that it lost again by the end."""
KEPT = (0.9, 0.5)
"""Of what is known beyond chance on the training split, that is known on validation as well."""
CERTAIN = 2.0
"""Standard errors."""
FITTED = 0.9
"""Of the way from chance to certainty on the training split."""
BEHIND = 0.1
"""Points of accuracy (or of R²) behind a random forest, from which on underfitting is serious."""
HARDER = (1.1, 1.2)
"""The training loss, with dropout and augmentation, by the loss of the same examples without."""
NO_GAP = 1.05
"""The validation loss by that of training examples without noise, up to which nothing overfits."""
LATE = (0.03, 0.1)
"""Of all that was won on the validation loss, what the second half of the steps won. Losses fall
about evenly with the logarithm of the steps, or slower: twice as many may win as much again."""
LAST = 0.9
EARLY = 0.25
"""Of the steps, after which nothing was won any more."""
MISCALIBRATED = (0.05, 0.2)
"""The expected calibration error. Guo et al. (2017) found 0.04 to 0.17 in deep networks."""
SURER = ("less_label_smoothing", "less_augmentation", "less_weight_decay", "longer_training")
LESS_SURE = ("label_smoothing", "mixup", "ensemble", "weight_decay", "early_stopping")
TAIL = (0.35, 0.6)
"""Of the squared errors, what the largest hundredth of them makes."""
PRECISE = (0.02, 0.05)
"""The standard error of the validation accuracy."""


class _Fit(NamedTuple):
    """How well both splits are predicted, on a scale from chance (0) to certainty (1)."""

    train: float
    validation: float
    error: float


def _fit(record: Record) -> _Fit | None:
    said = record.get("predictions") or {}
    train, validation = said.get("train"), said.get("validation")
    if not train or not validation or not validation["count"]:
        return None
    if "accuracy" not in train:
        if train.get("r2") is None or validation.get("r2") is None:
            return None
        return _Fit(train["r2"], validation["r2"], 2 / math.sqrt(validation["count"]))
    chance = max(record["run"]["counts"]) / sum(record["run"]["counts"])
    if chance >= 1:
        return None
    scale = 1 - chance
    p = validation["accuracy"]
    error = math.sqrt(max(p * (1 - p), 1 / validation["count"]) / validation["count"]) / scale
    return _Fit((train["accuracy"] - chance) / scale, (p - chance) / scale, error)


def _curve(record: Record, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    found = (record.get("curves") or {}).get(name)
    if not found or not found["values"]:
        return None
    return np.asarray(found["steps"], float), np.asarray(found["values"], float)


def overfitting(record: Record) -> Finding | None:
    """Finds a training split learnt by heart: validation gets worse, or is far behind."""
    levels, words = [], []
    numbers: dict[str, Any] = {}
    curve, trivial = _curve(record, "validation/loss"), record["run"].get("trivial_loss")
    if curve is not None and trivial is not None and len(curve[1]) >= 3:
        steps, values = curve
        best = int(np.argmin(values))
        won, last = trivial - values[best], float(np.mean(values[-2:]))
        noise = float(np.median(np.abs(np.diff(values))))
        lost = (last - values[best]) / won if won > 0 else 0.0
        numbers |= {"since": int(steps[best]), "lost": lost, "best": float(values[best])}
        found = level(lost, *LOST) if last - values[best] > CERTAIN * noise else None
        if found and best < len(values) - 2:
            levels.append(found)
            words.append(
                f"since step {int(steps[best]):,} the validation loss has risen from "
                f"{values[best]:.3g} to {last:.3g}, {share(lost)} of what had been won"
            )
    fit = _fit(record)
    if fit is not None and fit.train > 0 and fit.train - fit.validation > CERTAIN * fit.error:
        kept = max(0.0, fit.validation) / fit.train
        numbers |= {"kept": kept, "train": fit.train, "validation": fit.validation}
        if kept < KEPT[0]:
            levels.append("serious" if kept < KEPT[1] else "warning")
            words.append(
                f"of what is known of training examples beyond chance, {share(kept)} is known of "
                "validation examples"
            )
    if not levels:
        return None
    return Finding(
        "overfitting",
        "serious" if "serious" in levels else "warning",
        f"It overfits: {'; '.join(words)}.",
        "More data helps most.",
        (
            *("dropout", "weight_decay", "label_smoothing", "mixup", "rand_augment", "time_shift"),
            *("jitter", "token_dropout", "early_stopping", "average_ema", "narrower"),
        ),
        numbers,
        needs={"fit": -1},
    )


def underfitting(record: Record) -> Finding | None:
    """Finds that even the training split is not learnt, and something simple does better."""
    fit = _fit(record)
    if fit is None or fit.train >= FITTED or target_scale(record) is not None:
        return None  # what is in the way is the target's size, whatever the model
    reference = record.get("reference")
    validation = record["predictions"]["validation"]
    ahead, error = 0.0, math.inf
    if reference:
        count = validation["count"]
        if "accuracy" in validation:
            p, q = reference["score"], validation["accuracy"]
            ahead = p - q
            error = math.sqrt((p * (1 - p) + q * (1 - q)) / count)
        elif validation.get("r2") is not None and validation["r2"] < 1:
            spread = validation["mse"] / (1 - validation["r2"])
            ahead = (validation["mse"] - reference["score"]) / spread
            error = 2 / math.sqrt(count)
    certain = ahead > CERTAIN * error
    if not certain and (fit.train >= 0.5 or fit.train - fit.validation > CERTAIN * fit.error):
        return None
    made = "note" if not certain else "serious" if ahead >= BEHIND else "warning"
    told = ""
    if certain and reference:
        told = f" A {reference['name']} is {100 * ahead:.0f} points better on validation."
    return Finding(
        "underfitting",
        made,
        f"It underfits: on the way from chance to certainty it is at {share(max(0.0, fit.train))} "
        f"on the training split and at {share(max(0.0, fit.validation))} on validation.{told}",
        "The training split itself must be learnt first.",
        (
            *("less_dropout", "less_augmentation", "less_weight_decay", "wider", "deeper"),
            *("activation", "convolutional", "batch_norm", "longer_training", "learning_rate_up"),
            *("residual_connections", "piecewise_linear"),
        ),
        {"train": fit.train, "validation": fit.validation, "ahead": ahead},
        needs={"fit": 1},
    )


def over_regularised(record: Record) -> Finding | None:
    """Finds that dropout or augmentation makes training harder, where nothing overfits."""
    said, config = record.get("predictions") or {}, record.get("config") or {}
    quiet, validation = ((said.get(split) or {}).get("loss") for split in ("train", "validation"))
    curve = _curve(record, "train/loss")
    # these make the training loss another quantity than that of an evaluation
    other = (*SMOOTHING, *PENALTIES[1:], "data.augment.mixup", "data.augment.cutmix")
    if numbers_of(config, other) or setting(record, "loss.class_weights") is not None:
        return None
    noise = numbers_of(config, (*DROPOUT, *AUGMENTED))
    if curve is None or not noise or not quiet or validation is None or quiet < 0:
        return None
    harder = float(np.mean(curve[1][-2:])) / quiet
    made = level(harder, *HARDER)
    if made is None or validation > NO_GAP * quiet:
        return None
    return Finding(
        "over_regularised",
        "note" if made == "warning" else "warning",
        f"The training loss is {harder:.2f} times what the same examples have without dropout and "
        f"augmentation ({quiet:.3g}), and validation examples have no more ({validation:.3g}): "
        "this keeps the model from fitting, and it does not overfit.",
        "Where nothing overfits, a closer fit is a better one.",
        ("less_dropout", "less_augmentation"),
        {"harder": harder, "train": quiet, "validation": validation},
        needs={"fit": 1},
    )


def still_improving(record: Record) -> Finding | None:
    """Finds a best evaluation that is the last, after a second half that still won a lot.

    Serious as well where it underfits seriously: what the model can do is not known before it has
    stopped improving.
    """
    found = _progress(record)
    if found is None:
        return None
    best, late, total = found
    if best < LAST * total or record["run"].get("status") == "diverged":
        return None
    made = level(late, *LATE)
    if made is None:
        return None
    less = underfitting(record)
    if less is not None and less.level == "serious":
        made = "serious"
    return Finding(
        "still_improving",
        made,
        f"It was still improving when it ended: the second half of the {total:,} steps brought "
        f"{share(late)} of all that was won on the validation loss.",
        "What it can do is known when it no longer improves.",
        ("longer_training", "learning_rate_up", "schedule_cosine"),
        {"best_step": best, "late": late, "steps": total},
        needs={"steps": 1},
        words={"longer_training": "twice as many epochs"},
    )


def saturated_early(record: Record) -> Finding | None:
    """Finds that all that was won was won in the first quarter of the steps."""
    curve, trivial = _curve(record, "validation/loss"), record["run"].get("trivial_loss")
    if curve is None or trivial is None or len(curve[1]) < 8:
        return None
    steps, values = curve
    won = trivial - values.min()
    if not won > 0:
        return None
    there = int(steps[int(np.argmax(values <= values.min() + 0.01 * won))])
    total = record["run"].get("total_steps") or int(steps[-1])
    if there > EARLY * total:
        return None
    return Finding(
        "saturated_early",
        "note",
        f"After {there:,} of {total:,} steps hardly anything was won on the validation loss.",
        "The time is better spent on other settings.",
        ("early_stopping",),
        {"step": there, "steps": total},
        needs={"steps": -1},
    )


def _progress(record: Record) -> tuple[int, float, int] | None:
    """The step of the lowest loss, the share that the second half of the steps won, all steps."""
    curve, trivial = _curve(record, "validation/loss"), record["run"].get("trivial_loss")
    if curve is None or trivial is None:
        return None
    steps, values = curve
    start = ((record.get("gradients") or {}).get("start") or {}).get("loss")
    first = max(trivial, start) if start is not None and math.isfinite(start) else trivial
    # what was won from an initial loss far above chance says nothing of how far it has come
    first = min(first, 2 * trivial) if trivial > 0 else first
    won = first - values.min()
    if not won > 0:
        return None
    total = int(steps[-1])
    half = float(np.interp(total / 2, [0.0, *steps], [first, *values]))
    return int(steps[int(np.argmin(values))]), (half - float(values[-1])) / won, total


def miscalibration(record: Record) -> Finding | None:
    """Probabilities that are not to be believed."""
    said = (record.get("predictions") or {}).get("validation") or {}
    found = said.get("calibration")
    if not found or found["ece"] <= found["chance"]:
        return None
    made = level(found["ece"], *MISCALIBRATED)
    if made is None:
        return None
    too_sure = found["confidence"] > found["accuracy"]
    sure = "overconfident" if too_sure else "underconfident"
    return Finding(
        "miscalibration",
        made,
        f"The model is {sure}: its mean confidence is {share(found['confidence'])}, and "
        f"{share(found['accuracy'])} is right; the calibration error is {found['ece']:.3f} "
        f"(by chance at most {found['chance']:.3f}).",
        "A temperature fitted on validation corrects probabilities either way.",
        LESS_SURE if too_sure else SURER,
        {"ece": found["ece"], "chance": found["chance"], "confidence": found["confidence"]},
        needs={"confidence": -1 if too_sure else 1},
    )


def heavy_tails(record: Record) -> Finding | None:
    """Finds a squared loss of which most is that of a few training examples.

    Of normal errors, the largest hundredth makes 8 % of the squares; of Laplace's, 16 %.
    """
    said = (record.get("predictions") or {}).get("train") or {}
    tail, loss = said.get("tail"), setting(record, "loss.name")
    made = None if tail is None or loss not in (None, "mse") else level(tail, *TAIL)
    if made is None or tail is None:
        return None
    return Finding(
        "heavy_tails",
        "note" if made == "warning" else "warning",
        f"The largest hundredth of the errors on training examples makes {share(tail)} of the "
        "squared loss: a few examples decide what is learnt.",
        "Look at these examples first. Where large errors are not what counts most (by the mean "
        "absolute error, say), a loss that bounds their pull learns the others better.",
        ("huber_loss", "absolute_loss"),
        {"tail": tail},
    )


def weak_classes(record: Record) -> Finding | None:
    """Classes that are recognised much less often than the others."""
    said = (record.get("predictions") or {}).get("validation") or {}
    recall, counts = said.get("recall"), said.get("counts")
    names = record["run"].get("classes")
    if not recall or not counts or not names or len(names) < 3:
        return None
    labels = record["run"].get("unit") == "label"
    overall = said["found"] if labels else said["accuracy"]
    weak = []
    for name, value, count in zip(names, recall, counts, strict=True):
        if value is None or not count:
            continue
        error = math.sqrt(overall * (1 - overall) / count)
        if overall - value > max(0.1, 3 * error):
            weak.append((value, name))
    if not weak:
        return None
    weak.sort()
    confused = ""
    if said.get("confusion"):
        matrix = np.array(said["confusion"])
        row = matrix[names.index(weak[0][1])].copy()
        row[names.index(weak[0][1])] = 0
        confused = f" {weak[0][1]} is most often taken for {names[int(row.argmax())]}."
    told = [f"{name} ({share(value)})" for value, name in weak]
    whole, ones = ("labels", "labels") if labels else ("validation examples", "classes")
    return Finding(
        "weak_classes",
        "note",
        f"Of all {whole} {share(overall)} are recognised, of some {ones} far fewer: "
        f"{some(told)}.{confused}",
        f"More examples of these {ones} help most"
        + ("." if labels else "; look at what they are taken for."),
        ("class_weights",) if labels else ("balanced_sampling", "class_weights", "focal_loss"),
        {"recall": {name: value for value, name in weak}, "overall": overall},
    )


def noisy_validation(record: Record) -> Finding | None:
    """Finds a validation split too small to tell good settings from better ones."""
    said = (record.get("predictions") or {}).get("validation") or {}
    p, count = said.get("accuracy"), record["run"].get("validation_size")
    if p is None or not count:
        return None
    error = math.sqrt(max(p * (1 - p), 1 / count) / count)
    made = level(error, *PRECISE)
    if made is None:
        return None
    folds = "" if setting(record, "data.folds") else ", cross-validation (data.folds)"
    return Finding(
        "noisy_validation",
        "note" if made == "warning" else "warning",
        f"With {count:,} validation examples the accuracy is known to ± {100 * error:.1f} points "
        "(a standard error): smaller differences are chance.",
        f"More validation examples{folds}, or several seeds.",
        (),
        {"error": error, "count": count},
    )


FINDINGS = (
    heavy_tails,
    overfitting,
    underfitting,
    over_regularised,
    still_improving,
    saturated_early,
    miscalibration,
    weak_classes,
    noisy_validation,
)
