"""The report of a run: its numbers, its curves, and where it is wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdlopt.errors import WorkdirError
from jdlopt.report import figures, page, save

WORST = 12
"""Examples with the largest loss that are shown."""
SMALLEST_PICTURE = 96
"""Pixels that the longer side of a picture has at least."""


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
    from jdlopt.train.loop import read_result

    config = serve.run_config(workdir)
    result = read_result(workdir)
    rows = log.read_lines(workdir / log.METRICS)
    content = [_headline(result), _curves(rows)]
    if result is not None and result["metrics"]:
        content.append(page.section("metrics", "Metrics", _metrics(result)))
    try:
        outcome = examine(workdir, config)
    except WorkdirError as error:
        reason = f"<p>Nothing can be said of single examples: {page.text(error)}</p>"
        content.append(page.section("examples", "Examples", reason))
    else:
        content += _classes(outcome) if outcome.probabilities is not None else _values(outcome)
        content.append(_worst(outcome))
    name = workdir.resolve().name
    lead = f"A run of {config['model']['name']} on {config['data']['source']}."
    versions = (
        "" if result is None else ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    )
    return save(workdir, page.page(f"Run {name}", lead, content, versions))


def examine(workdir: Path, config: Mapping[str, Any]) -> Outcome:
    """Computes the best checkpoint's outputs and losses on the validation split.

    Raises:
      WorkdirError: there is no checkpoint.
    """
    import jax

    from jdlopt import config as configs
    from jdlopt.train import experiment, serve
    from jdlopt.train.state import as_arrays
    from jdlopt.train.step import predict_step

    resolved, dataset = experiment.prepare(config)
    parts = experiment.build(resolved, dataset)
    params, model_state, _ = serve.load_parameters(
        resolved, parts.model, dataset.input_shape, workdir, "best"
    )
    hparams = as_arrays(configs.hyperparameters(resolved))
    step = jax.jit(
        partial(predict_step, model=parts.model, loss=parts.loss, preprocess=parts.preprocess)
    )
    each = jax.jit(parts.loss.per_example)
    arrays = dataset.read("validation")
    outputs, probabilities, losses = [], [], []
    size = min(1024, len(arrays.targets))
    for first in range(0, len(arrays.targets), size):
        # the last batch starts earlier, so that one program serves all
        start = min(first, len(arrays.targets) - size)
        part = slice(start, start + size)
        fresh = slice(first - start, None)
        out, some = step(params, model_state, hparams, arrays.inputs[part])
        outputs.append(np.asarray(out)[fresh])
        losses.append(np.asarray(each(out, arrays.targets[part], hparams["loss"]))[fresh])
        if some is not None:
            probabilities.append(np.asarray(some)[fresh])
    return Outcome(
        arrays.inputs,
        arrays.targets,
        np.concatenate(outputs),
        np.concatenate(probabilities) if probabilities else None,
        np.concatenate(losses),
        dataset,
    )


def _headline(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "<p>The run has not ended yet: this is what is known so far.</p>"
    best = result["best"]
    pairs = [(f"best {best['metric']}", page.number(best["value"]))] if best["step"] >= 0 else []
    test = next((name for name in ("test/accuracy", "test/rmse") if name in result["metrics"]), "")
    pairs += [(test.replace("/", " "), page.number(result["metrics"][test]))] if test else []
    pairs += [
        ("status", page.text(result["status"])),
        ("steps", page.number(result["steps"])),
        ("parameters", page.number(result["n_params"])),
        ("wall time", f"{result['wall_seconds']:.1f} s"),
    ]
    return page.facts(pairs)


def _curves(rows: list[dict[str, Any]]) -> str:
    names = dict.fromkeys(name.partition("/")[2] for row in rows for name in row if "/" in name)
    made = []
    for index, name in enumerate(names):
        found = []
        for colour, split in enumerate(("train", "validation")):
            points = [
                (row["step"], row[f"{split}/{name}"])
                for row in rows
                if row.get(f"{split}/{name}") is not None
            ]
            if points:
                steps, values = zip(*points)
                found.append({"label": split, "steps": steps, "values": values, "colour": colour})
        if found:
            made.append(figures.curves(f"curve-{index}", name, found, name))
    if not made:
        return page.section("curves", "Curves", "<p>No step has been logged yet.</p>")
    return page.section("curves", "Curves", f'<div class="grid">{"".join(made)}</div>')


def _metrics(result: Mapping[str, Any]) -> str:
    found = result["metrics"]
    splits = [
        s for s in ("train", "validation", "test") if any(k.startswith(f"{s}/") for k in found)
    ]
    names = dict.fromkeys(
        key.partition("/")[2]
        for key, value in found.items()
        if isinstance(value, int | float) and not key.endswith("grad_norm")
    )
    rows = [
        [page.text(name), *(page.number(found.get(f"{split}/{name}")) for split in splits)]
        for name in names
    ]
    return page.table("Of the best checkpoint, by split", ["metric", *splits], rows)


def _classes(outcome: Outcome) -> list[str]:
    from sklearn import metrics

    assert outcome.probabilities is not None
    names = list(outcome.dataset.class_names)
    guesses = outcome.probabilities.argmax(axis=-1)
    matrix = metrics.confusion_matrix(outcome.targets, guesses, labels=range(len(names)))
    made = [
        page.section(
            "confusion", "What is taken for what", figures.confusion("confusions", matrix, names)
        )
    ]
    roc, pr = [], []
    chosen = [1] if len(names) == 2 else range(len(names))
    for index in chosen:
        positive = outcome.targets == index
        if not positive.any() or positive.all():
            continue
        scores = outcome.probabilities[:, index]
        false, true, _ = metrics.roc_curve(positive, scores)
        roc.append((names[index], false, true))
        precision, recall, _ = metrics.precision_recall_curve(positive, scores)
        pr.append((names[index], recall[::-1], precision[::-1]))
    if roc:
        axes = ("false positive rate", "true positive rate")
        pictures = [
            figures.lines("roc", "ROC, each class against the rest", roc, axes, diagonal=True),
            figures.lines("pr", "Precision and recall", pr, ("recall", "precision")),
            _reliability(outcome, guesses),
        ]
        grid = f'<div class="grid">{"".join(pictures)}</div>'
        made.append(page.section("thresholds", "Thresholds and confidence", grid))
    return made


def _reliability(outcome: Outcome, guesses: np.ndarray) -> str:
    assert outcome.probabilities is not None
    confidence = outcome.probabilities.max(axis=-1)
    right = guesses == outcome.targets
    places = np.minimum(9, (confidence * 10).astype(int))
    bins = [index for index in range(10) if (places == index).any()]
    x = [float(confidence[places == index].mean()) for index in bins]
    y = [float(right[places == index].mean()) for index in bins]
    return figures.lines(
        "reliability",
        "Confidence against the share that is right",
        [("validation", x, y)],
        ("confidence", "share right"),
        diagonal=True,
        markers=True,
    )


def _values(outcome: Outcome) -> list[str]:
    predicted = outcome.outputs.reshape(len(outcome.outputs), -1)[:, 0]
    true = outcome.targets
    pictures = [
        figures.scatter(
            "predicted", "Predicted against true", true, predicted, ("true", "predicted"), True
        ),
        figures.scatter(
            "residuals", "Residual against prediction", predicted, true - predicted,
            ("predicted", "true - predicted"), False,
        ),
    ]  # fmt: skip
    return [page.section("values", "Predictions", f'<div class="grid">{"".join(pictures)}</div>')]


def _worst(outcome: Outcome) -> str:
    worst = np.argsort(-np.nan_to_num(outcome.losses, nan=np.inf))[:WORST]
    names = outcome.dataset.class_names
    shape = outcome.dataset.input_shape

    def said(index: int) -> tuple[str, str]:
        if outcome.probabilities is None:
            return page.number(float(outcome.targets[index])), page.number(
                float(outcome.outputs[index].reshape(-1)[0])
            )
        guess = int(outcome.probabilities[index].argmax())
        share = float(outcome.probabilities[index, guess])
        return page.text(names[int(outcome.targets[index])]), (
            f"{page.text(names[guess])} ({share:.0%})"
        )

    drawn = _drawer(shape)
    if drawn is not None:
        cards = []
        for index in worst:
            true, guess = said(int(index))
            picture = drawn(outcome.inputs[index])
            cards.append(
                f'<figure><img alt="validation example {int(index)}" src="data:image/png;base64,'
                f'{picture}"><figcaption>{true}, taken for {guess}</figcaption></figure>'
            )
        shown = f'<div class="pictures">{"".join(cards)}</div>'
    else:
        features = outcome.dataset.feature_names or [f"input {i}" for i in range(shape[0])]
        features = list(features)[:12]
        rows = []
        for index in worst:
            true, guess = said(int(index))
            cells = [
                page.number(float(v)) for v in outcome.inputs[index].reshape(-1)[: len(features)]
            ]
            rows.append([str(int(index)), true, guess, *cells])
        shown = page.table("By loss", ["example", "true", "predicted", *features], rows)
    note = "<p>The validation examples with the largest loss of the best checkpoint.</p>"
    return page.section("worst", "Where it is most wrong", note, shown)


def _drawer(shape: tuple[int, ...]) -> Any:
    """Returns how an example is drawn as PNG in base64, or None where it is no picture."""
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3)):
        return _picture
    if (len(shape) == 1 and shape[0] >= 32) or (len(shape) == 2 and shape[-1] == 1):
        return _sequence
    return None


def _encoded(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _picture(values: np.ndarray) -> str:
    from PIL import Image

    pixels = np.asarray(values, np.float64)
    low, high = pixels.min(), pixels.max()  # not all pictures use the whole range of their type
    pixels = (pixels - low) / (high - low or 1.0) * 255
    pixels = pixels.astype(np.uint8)
    image = Image.fromarray(
        pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    )
    grow = max(1, round(SMALLEST_PICTURE / max(image.size)))
    return _encoded(
        image.resize((image.width * grow, image.height * grow), Image.Resampling.NEAREST)
    )


def _sequence(values: np.ndarray) -> str:
    from PIL import Image, ImageDraw

    flat = np.asarray(values, np.float64).reshape(-1)
    low, high = flat.min(), flat.max()
    x = np.linspace(6, 186, len(flat))
    y = 90 - (flat - low) / (high - low or 1.0) * 84
    image = Image.new("RGBA", (192, 96), (0, 0, 0, 0))
    ImageDraw.Draw(image).line(list(zip(x, y)), fill=(91, 143, 208, 255), width=2)
    return _encoded(image)
