"""The examples with the largest loss, and what the model says of each."""

from __future__ import annotations

import numpy as np

from jdlopt.data import named
from jdlopt.data.coding import PAD
from jdlopt.report.cards import Cards, cards
from jdlopt.report.masks import side_by_side
from jdlopt.report.outcome import Guesses, Outcome
from jdlopt.report.page import number
from jdlopt.tasks import find_task

WORST = 12
"""Examples with the largest loss that are shown."""
OUTPUTS = 6
"""Numbers of a target that are shown."""
WORDS = {"classes": "predicted as", "labels": "predicted as"}


def worst(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of them, as ``worst``; None of pairs."""
    if "pairs" in find_task(outcome.spec.task).shows:
        return {"worst": None}
    order = np.argsort(-np.nan_to_num(outcome.losses, nan=np.inf))[:WORST]
    shows = find_task(outcome.spec.task).shows
    if "masks" in shows:
        return {"worst": side_by_side(outcome, order)}
    known = outcome.probabilities is not None or outcome.likeliest is not None
    if "continuations" in shows:
        return {"worst": _texts(outcome, order)}
    guesses = outcome.guesses if "classes" in shows and known else None
    said = [_said(outcome, index, guesses) for index in order.tolist()]
    joined = next((words for what, words in WORDS.items() if what in shows), "predicted")
    return {
        "worst": cards(
            outcome.spec,
            named.rows(outcome.inputs, order),
            [outcome.name(index) for index in order.tolist()],
            ["true", "predicted", "loss"],
            said,
            [f"{true}, {joined} {guess}; loss {loss}" for true, guess, loss in said],
            "By loss",
        )
    }


def _texts(outcome: Outcome, order: np.ndarray) -> Cards:
    """Returns the texts alone: what is predicted of one is as long as itself."""
    losses = [[number(float(outcome.losses[index]))] for index in order.tolist()]
    names = [outcome.name(index) for index in order.tolist()]
    words = [f"loss {loss}" for [loss] in losses]
    inputs = named.rows(outcome.inputs, order)
    return cards(outcome.spec, inputs, names, ["loss"], losses, words, "By loss")


def _said(outcome: Outcome, index: int, guesses: Guesses | None) -> tuple[str, str, str]:
    """Returns the true target, the predicted one and the loss of an example, in words."""
    task, spec = find_task(outcome.spec.task), outcome.spec
    target, loss = outcome.targets[index], number(float(outcome.losses[index]))
    found = outcome.probabilities[index] if outcome.probabilities is not None else None
    if guesses is not None:
        classes, confidence = guesses
        guess = f"{spec.class_names[classes[index]]} ({float(confidence[index]):.0%})"
        return str(spec.class_names[int(target)]), guess, loss
    if "labels" in task.shows and found is not None:
        chosen = np.flatnonzero(target), np.flatnonzero(spec.decision.labels(found))
        true, guess = (
            ", ".join(spec.class_names[place] for place in some) or "none" for some in chosen
        )
        return true, guess, loss
    shares = None if found is None else found[None]
    decoded = task.decode(outcome.outputs[index][None], shares, spec)
    guess = decoded.labels[0] if decoded.labels else _numbers(decoded.values[0])
    if task.told is None:
        return _numbers(target), guess, loss
    if decoded.labels is None:  # at the positions that have a target
        guess = task.told(np.where(target == PAD, PAD, decoded.values[0])[None], spec)[0]
    return task.told(target[None], spec)[0], guess, loss


def _numbers(values: object) -> str:
    return ", ".join(map(number, np.ravel(np.asarray(values))[:OUTPUTS].tolist()))
