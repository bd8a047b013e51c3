"""The examples with the largest loss: pictures, texts, and the columns of tables."""

from __future__ import annotations

import numpy as np

from jdlopt.data.check.arrays import kind_of
from jdlopt.data.named import by_name
from jdlopt.data.spec import InputSpec
from jdlopt.report.examples import drawer
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Table, number
from jdlopt.tasks import find_task
from jdlopt.tasks.multilabel import THRESHOLD

WORST = 12
"""Examples with the largest loss that are shown."""
FEATURES = 12
"""Columns of a table's example that are shown."""
LETTERS = 400
"""Letters of a text that are shown."""
OUTPUTS = 6
"""Numbers of a target that are shown."""
WORDS = {"classes": "predicted as", "labels": "predicted as"}


def worst(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of them: ``pictures``, or a table, or both.

    An input that can be drawn is a picture; texts and columns of tables stand in the table.
    """
    order = np.argsort(-np.nan_to_num(outcome.losses, nan=np.inf))[:WORST].tolist()
    said = {index: _said(outcome, index) for index in order}
    cards: list[dict[str, object]] = []
    header: list[str] = ["example", "true", "predicted", "loss"]
    rows: list[list[object]] = [[str(index), *said[index]] for index in order]
    wide, more = set[int](), ""
    inputs = by_name(outcome.inputs)
    for name, spec in outcome.spec.named.items():
        kind, values = kind_of(spec), inputs[name]
        draw = None if kind in ("table", "text") else drawer(spec.shape)
        if draw is not None:
            shows = find_task(outcome.spec.task).shows
            joined = next((words for what, words in WORDS.items() if what in shows), "predicted")
            for index in order:
                true, guess, loss = said[index]
                words = f"{true}, {joined} {guess}"
                png, smooth = draw(values[index])
                which = f", {name}" if len(inputs) > 1 else ""
                cards.append({"alternative": f"validation example {index}{which}: {words}",
                              "png": png, "smooth": smooth,
                              "caption": f"{words}; loss {loss}"})  # fmt: skip
        elif spec.text is not None:
            wide.add(len(header))
            header.append(spec.text.column)
            for row, index in zip(rows, order, strict=True):
                row.append(_text(spec, values[index]))
        else:
            names, cells = _cells(spec, values[order])
            size = cells.shape[1]
            if size > FEATURES:
                more = f", with the first {FEATURES} of {size} columns"
            header += names[:FEATURES]
            for row, columns in zip(rows, cells.tolist(), strict=True):
                row += columns[:FEATURES]
    if cards and len(header) == 4:
        return {"pictures": cards}
    return {"pictures": cards or None, "worst": Table(f"By loss{more}", header, rows, wide)}


def _text(spec: InputSpec, ids: np.ndarray) -> str:
    from jdlopt.data import text

    assert spec.text is not None
    [words] = text.decode(spec.text.state, ids[None])
    return words if len(words) <= LETTERS else words[: LETTERS - 1] + "…"


def _cells(spec: InputSpec, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Returns the names of an input's columns and what is in them: categories by name."""
    flat = values.reshape(len(values), -1).astype(float)
    names = [str(one) for one in spec.feature_names or [f"input {i}" for i in range(flat.shape[1])]]
    cells = flat.astype(object)
    for place, name in enumerate(names):
        texts = () if spec.hash_buckets else spec.categories.get(name, ())
        if texts:
            known = dict(enumerate(texts, start=1))
            cells[:, place] = [
                known.get(int(code), "(new)") if np.isfinite(code) else None
                for code in flat[:, place]
            ]
    return names, cells


def _said(outcome: Outcome, index: int) -> tuple[str, str, str]:
    """Returns the true target, the predicted one and the loss of an example, in words."""
    task, spec = find_task(outcome.spec.task), outcome.spec
    target, loss = outcome.targets[index], number(float(outcome.losses[index]))
    found = outcome.probabilities[index] if outcome.probabilities is not None else None
    if "classes" in task.shows and found is not None:
        best = int(found.argmax())
        guess = f"{spec.class_names[best]} ({float(found[best]):.0%})"
        return str(spec.class_names[int(target)]), guess, loss
    if "labels" in task.shows and found is not None:
        chosen = np.flatnonzero(target), np.flatnonzero(found > THRESHOLD)
        true, guess = (
            ", ".join(spec.class_names[place] for place in some) or "none" for some in chosen
        )
        return true, guess, loss
    shares = None if found is None else found[None]
    decoded = task.decode(outcome.outputs[index][None], shares, spec)
    guess = decoded.labels[0] if decoded.labels else _numbers(decoded.values[0])
    return _numbers(target), guess, loss


def _numbers(values: object) -> str:
    return ", ".join(map(number, np.ravel(np.asarray(values))[:OUTPUTS].tolist()))
