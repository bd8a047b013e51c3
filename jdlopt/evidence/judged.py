"""How good a checkpoint's predictions are, by what its task says it shows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Num

from jdlopt.data import named, transcript_coding
from jdlopt.data.check.examples import sampled
from jdlopt.data.coding import BLANK
from jdlopt.data.pools import Arrays
from jdlopt.data.spec import DataSpec
from jdlopt.evidence import examples, probe
from jdlopt.metrics import scores, transcripts
from jdlopt.tasks import find_task
from jdlopt.train.experiment import Experiment
from jdlopt.train.predict import Predicted, Predictor
from jdlopt.train.state import Weights

MATRIX_CLASSES = 100
"""Of more classes there is no confusion matrix."""


def of_predictions(
    said: Predicted, targets: Num[np.ndarray, "n *k"], spec: DataSpec
) -> dict[str, Any]:
    """Returns how good predictions are, by the task: loss, accuracy, calibration, error rates."""
    assert said.losses is not None
    losses = said.losses[np.isfinite(said.losses)]
    found: dict[str, Any] = {
        "count": len(targets),
        "finite": len(losses) / max(1, len(said.losses)),
        "loss": float(losses.mean()) if len(losses) else None,
    }
    shows, classes = find_task(spec.task).shows, spec.num_classes
    if "values" in shows:
        # of several outputs each counts by its own spread, as the mean of their R² does
        errors = (said.outputs.reshape(targets.shape) - targets) ** 2
        spread = np.atleast_1d(np.var(targets, axis=0))
        explained = 1 - np.mean(errors, axis=0) / np.where(spread > 0, spread, 1.0)
        found["r2"] = float(np.mean(explained)) if (spread > 0).all() else None
        found["mse"] = float(np.mean(errors))
        found["tail"] = tail_of(errors)
        return found
    if "labels" in shows and said.probabilities is not None:
        chosen = spec.decision.labels(np.nan_to_num(said.probabilities))
        split = scores.split_of(targets > 0, chosen, classes)
        hits, counts, _ = scores.tally(split)
        return {
            **found,
            "found": float(hits.sum() / max(1, counts.sum())),
            **_of_each(hits, counts),
        }
    if "transcripts" in shows:
        return {**found, **_of_transcripts(said, targets, spec)}
    if "classes" not in shows or said.probabilities is None:
        return found
    probabilities = np.nan_to_num(said.probabilities)
    guesses = spec.decision.classes(probabilities)
    split = scores.split_of(targets, guesses, classes)
    hits, counts, _ = scores.tally(split)
    return {
        **found,
        "accuracy": float((guesses == targets).mean()),
        "calibration": examples.calibration(probabilities, targets),
        "confusion": scores.confusion(split).tolist() if classes <= MATRIX_CLASSES else None,
        **_of_each(hits, counts),
    }


UNREACHABLE = 5e4
"""The CTC loss of a target that needs more steps than there are is about 1e5."""


def _of_transcripts(
    said: Predicted, targets: Num[np.ndarray, "n symbols"], spec: DataSpec
) -> dict[str, Any]:
    """Returns how wrong transcripts are, how many say nothing, and how many can't be reached."""
    path = said.outputs.argmax(axis=-1)
    true = transcript_coding.texts_of(targets, spec.class_names)
    heard = transcript_coding.texts_of(transcript_coding.collapsed(path), spec.class_names)
    losses = np.empty(0) if said.losses is None else said.losses
    return {
        "wer": transcripts.error_rate(true, heard),
        "cer": transcripts.error_rate(true, heard, list),
        "empty": float(np.mean([not one for one in heard])),
        "blanks": float(np.mean(path == BLANK)),
        "unreachable": int((losses > UNREACHABLE).sum()),
    }


def _of_each(hits: Int[np.ndarray, " k"], counts: Int[np.ndarray, " k"]) -> dict[str, object]:
    """Returns the recall of each class or label, None where it has no example, and how many."""
    recalls = [float(h / n) if n else None for h, n in zip(hits, counts, strict=True)]
    return {"recall": recalls, "counts": counts.tolist()}


LEAST_ERRORS = 200
"""Fewer errors have no hundredth to speak of."""


def tail_of(squares: Num[np.ndarray, "..."]) -> float | None:
    """Returns what share of squared errors the largest hundredth of them makes; None of few.

    Example:
      >>> tail_of(np.ones(1000)), tail_of(np.array([1.0]))
      (0.01, None)
    """
    ordered = np.sort(np.asarray(squares, np.float64), axis=None)
    total = float(ordered.sum())
    if len(ordered) < LEAST_ERRORS or not 0 < total < np.inf:
        return None
    return float(ordered[-(len(ordered) // 100) :].sum() / total)


def pruned(
    experiment: Experiment, weights: Weights, some: Arrays, predict: Predictor, whole: Predicted
) -> list[dict[str, float]]:
    """Returns the loss, and where examples have a class the accuracy, without small weights.

    Args:
      experiment: the weights'.
      weights: a checkpoint's.
      some: examples.
      predict: the experiment's.
      whole: what is predicted of the examples with all weights.
    """
    params = jax.device_get(weights.params)
    of_classes = "classes" in find_task(experiment.spec.task).shows
    few = sampled(len(some.targets), probe.FOR_PRUNED)
    inputs, targets = named.rows(some.inputs, few), some.targets[few]

    def row(share: float, said: Predicted) -> dict[str, float]:
        assert said.losses is not None
        made = {"share": share, "loss": float(said.losses.mean())}
        if of_classes and said.probabilities is not None:
            made["accuracy"] = float((said.probabilities.argmax(axis=1) == targets).mean())
        return made

    rows = [row(0.0, jax.tree.map(lambda values: values[few], whole))]
    for share in probe.PRUNED:
        fewer = weights.replace(params=jax.device_put(probe.pruned(params, share)))
        rows.append(row(share, predict(fewer, inputs, targets)))
    return rows
