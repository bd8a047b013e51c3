"""The report of a run: its numbers, its curves, and where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdlopt.errors import UserError
from jdlopt.report import figures
from jdlopt.report.examples import drawer
from jdlopt.report.page import Figure, Table, number, render
from jdlopt.report.records import Record, as_written
from jdlopt.report.saving import save

WORST = 12
"""Examples with the largest loss that are shown."""
FEATURES = 12
"""Inputs of a table's example that are shown."""
MATRIX_CLASSES = 40
"""Of more classes, the most frequent confusions are listed instead of all."""
CURVE_CLASSES = 10
"""Of more classes, those with the smallest area under the ROC curve have curves."""


class Outcome(NamedTuple):
    """What the best checkpoint says of the validation split.

    Attributes:
      inputs: raw, as the data holds them.
      targets: classes or values.
      outputs: the model's.
      probabilities: [n, classes], or None for a regression.
      losses: per example.
      dataset: the opened dataset.
    """

    inputs: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    probabilities: np.ndarray | None
    losses: np.ndarray
    dataset: Any


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` of a run, finished or not; returns its path.

    Raises:
      WorkdirError: the directory's files can't be read.
    """
    from jdlopt.train import log, serve
    from jdlopt.train.result import read_result

    config = serve.run_config(workdir)
    result = read_result(workdir)
    rows = log.read_lines(workdir / log.METRICS)
    unavailable, outcome = "", None
    try:
        outcome = examine(workdir, config)
    except UserError as error:
        unavailable = str(error)
    with as_written(workdir / "result.json"):
        text = make_page(workdir.resolve().name, config, result, rows, outcome, unavailable)
    return save(workdir, text)


def make_page(
    name: str,
    config: Record,
    result: Record | None,
    rows: Sequence[Record],
    outcome: Outcome | None,
    unavailable: str = "",
) -> str:
    """Returns the page as HTML.

    Args:
      name: the run's.
      config: its resolved config.
      result: the content of ``result.json``; None while there is none.
      rows: of ``metrics.jsonl``.
      outcome: what the best checkpoint predicts, or None.
      unavailable: why there is no outcome.
    """
    found = (result or {}).get("metrics") or {}
    return render(
        "run",
        title=f"Run {name}",
        lead=f"{config['model']['name']} on {config['data']['source']}.",
        footer=", ".join(f"{k} {v}" for k, v in (result or {}).get("versions", {}).items()),
        result=None if result is None else {"diverged": None, **result},
        facts=_facts(result, found) if result else [],
        curves=_curves(rows),
        metrics=_metrics(found) if found else None,
        unavailable=unavailable,
        **(_predictions(outcome) if outcome else {}),
    )


def examine(workdir: Path, config: Mapping[str, Any]) -> Outcome:
    """Computes the best checkpoint's outputs and losses on the validation split.

    Raises:
      UserError: there is no checkpoint, or the data or the model's module is not there any more.
    """
    from jdlopt.train import serve
    from jdlopt.train.experiment import Experiment
    from jdlopt.train.predict import predictor

    experiment = Experiment.build(config)
    weights, _ = serve.load_weights(experiment, workdir, "best")
    arrays = experiment.data.read("validation")
    found = predictor(experiment)(weights, arrays.inputs, arrays.targets)
    assert found.losses is not None
    return Outcome(
        arrays.inputs,
        arrays.targets,
        found.outputs,
        found.probabilities,
        found.losses,
        experiment.data,
    )


def _facts(result: Record, found: Record) -> list[tuple[str, object]]:
    best = result.get("best") or {}
    facts: list[tuple[str, object]] = []
    if best.get("step", -1) >= 0:
        facts.append((f"best {best.get('metric')}", best.get("value")))
    test = next((name for name in ("test/accuracy", "test/rmse", "test/loss") if name in found), "")
    facts += [(test, found[test])] if test else []
    return [
        *facts,
        ("status", result["status"]),
        ("steps", result.get("steps")),
        ("parameters", result.get("n_params")),
        ("wall time", f"{number(result.get('wall_seconds'))} s"),
    ]


def _curves(rows: Sequence[Record]) -> list[Figure]:
    names = dict.fromkeys(name.partition("/")[2] for row in rows for name in row if "/" in name)
    names = dict.fromkeys(["loss", "accuracy", *names, "grad_norm"])
    names["grad_norm"] = names.pop("grad_norm")  # last: it matters when something is wrong
    made: list[Figure] = []
    for name in names:
        points: dict[str, tuple[list[float], list[float]]] = {}
        for split in ("train", "validation"):
            steps, values = points.setdefault(split, ([], []))
            for row in rows:
                value = row.get(f"{split}/{name}")
                if isinstance(value, int | float):
                    steps.append(row["step"])
                    values.append(value)
        figure = figures.by_split(f"curve-{len(made)}", name, points)
        made += [figure] if figure else []
    return made


def _metrics(found: Record) -> Table:
    splits = [
        s for s in ("train", "validation", "test") if any(k.startswith(f"{s}/") for k in found)
    ]
    names = dict.fromkeys(
        key.partition("/")[2]
        for key, value in found.items()
        if isinstance(value, int | float) and not key.endswith("grad_norm")
    )
    rows = [[name, *(found.get(f"{split}/{name}") for split in splits)] for name in names]
    caption = "Validation and test: of the best checkpoint; train: of the last logged step"
    return Table(caption, ["metric", *splits], rows)


# --- predictions ----------------------------------------------------------------------------------


def _predictions(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of single examples."""
    made: dict[str, object] = dict.fromkeys(
        ("confusion", "confusions", "thresholds", "values", "pictures", "worst")
    )
    made |= _values(outcome) if outcome.probabilities is None else _classes(outcome)
    return made | _worst(outcome)


def _classes(outcome: Outcome) -> dict[str, object]:
    from sklearn import metrics

    assert outcome.probabilities is not None
    names = [str(name) for name in outcome.dataset.spec.class_names]
    guesses = outcome.probabilities.argmax(axis=-1)
    matrix = metrics.confusion_matrix(outcome.targets, guesses, labels=range(len(names)))
    made: dict[str, object] = {}
    if len(names) <= MATRIX_CLASSES:
        made["confusion"] = figures.confusion("confusions", matrix, names)
    else:
        pairs = figures.confusions(matrix, names)[:20]
        made["confusions"] = Table("By count", ["true", "predicted", "examples"], pairs)
    found = []
    for index in [1] if len(names) == 2 else range(len(names)):
        positive = outcome.targets == index
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
    shown = []
    if roc:
        which = "each class against the rest"
        if len(found) > CURVE_CLASSES:
            which = f"the {CURVE_CLASSES} of {len(names)} classes with the smallest area"
        first, second = f"ROC and the area under it, {which}", f"Precision by recall, {which}"
        if len(names) == 2:
            first, second = (
                f"{words} of {one[0][0]}" for words, one in (("ROC, area", roc), ("PR, mean", pr))
            )
        axes = ("false positive rate", "true positive rate")
        shown += [
            figures.unit_square("roc", first, roc, axes, diagonal=True),
            figures.unit_square("pr", second, pr, ("recall", "precision")),
        ]
    made["thresholds"] = [*shown, _reliability(outcome.probabilities, guesses == outcome.targets)]
    return made


def _reliability(probabilities: np.ndarray, right: np.ndarray) -> Figure:
    confidence = probabilities.max(axis=-1)
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
    predicted = outcome.outputs.reshape(len(outcome.outputs), -1)[:, 0]
    true = outcome.targets
    against = figures.scatter(
        "predicted", "Predicted against true", true, predicted, ("true", "predicted"), True
    )
    residuals = figures.scatter(
        "residuals", "Residual against prediction", predicted, true - predicted,
        ("predicted", "true - predicted"), False,
    )  # fmt: skip
    return {"values": [against, residuals]}


def _worst(outcome: Outcome) -> dict[str, object]:
    order = np.argsort(-np.nan_to_num(outcome.losses, nan=np.inf))[:WORST]
    worst = [(int(index), *_said(outcome, int(index))) for index in order]
    shape = outcome.dataset.spec.input.shape
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
    names = outcome.dataset.spec.input.feature_names or [f"input {i}" for i in range(size)]
    features = [str(name) for name in names][:FEATURES]
    inputs = outcome.inputs.reshape(len(outcome.inputs), -1)[:, : len(features)].astype(float)
    rows = [
        [str(index), true, guess, loss, *inputs[index].tolist()]
        for index, true, guess, loss in worst
    ]
    more = f", with the first {FEATURES} of {size} inputs" if size > len(features) else ""
    header = ["example", "true", "predicted", "loss", *features]
    return {"worst": Table(f"By loss{more}", header, rows)}


def _said(outcome: Outcome, index: int) -> tuple[str, str, str]:
    """Returns the true target, the predicted one and the loss of an example, in words."""
    loss = number(float(outcome.losses[index]))
    if outcome.probabilities is None:
        true, guess = outcome.targets[index], outcome.outputs[index].reshape(-1)[0]
        return number(float(true)), number(float(guess)), loss
    names, best = outcome.dataset.spec.class_names, int(outcome.probabilities[index].argmax())
    share = float(outcome.probabilities[index, best])
    return str(names[int(outcome.targets[index])]), f"{names[best]} ({share:.0%})", loss
