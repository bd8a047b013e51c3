"""The report of a run: its numbers, its curves, and where it is wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdlopt.errors import UserError
from jdlopt.report import figures, page, save

WORST = 12
"""Examples with the largest loss that are shown."""
SMALLEST_PICTURE, LARGEST_PICTURE = 96, 144
"""Pixels that the longer side of a picture has at least, and at most."""
MATRIX_CLASSES = 40
"""Of more classes, the most frequent confusions are told instead of all."""
CURVE_CLASSES = 10
"""Of more classes, those that are told apart worst have curves."""


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
    content = [_headline(result), _curves(rows)]
    if result is not None and result.get("metrics"):
        content.append(page.section("metrics", "Metrics", _metrics(result)))
    try:
        outcome = examine(workdir, config)
    except UserError as error:
        reason = (
            "<p>Nothing can be said of single examples, since the data or the checkpoint can't be "
            f"opened now: {page.text(error)}</p>"
        )
        content.append(page.section("examples", "Examples", reason))
    else:
        content += _classes(outcome) if outcome.probabilities is not None else _values(outcome)
        content.append(_worst(outcome))
    name = workdir.resolve().name
    lead = f"A run of {config['model']['name']} on {config['data']['source']}."
    versions = (
        ", ".join(f"{k} {v}" for k, v in result.get("versions", {}).items()) if result else ""
    )
    return save(workdir, page.page(f"Run {name}", lead, content, versions))


def examine(workdir: Path, config: Mapping[str, Any]) -> Outcome:
    """Computes the best checkpoint's outputs and losses on the validation split.

    Raises:
      UserError: there is no checkpoint, or the data or the model's module is not there any more.
    """
    import jax

    from jdlopt import config as configs
    from jdlopt.train import experiment, serve
    from jdlopt.train.state import as_arrays
    from jdlopt.train.step import predict_step

    resolved, dataset = experiment.prepare(config)
    parts = experiment.build(resolved, dataset)
    params, model_state, _ = serve.load_parameters(
        resolved, parts.model, (parts.input_shape, parts.input_dtype), workdir, "best"
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
    best = result.get("best") or {}
    found = result.get("metrics") or {}
    pairs = []
    if best.get("step", -1) >= 0:
        pairs.append((f"best {best.get('metric')}", page.number(best.get("value"))))
    test = next((name for name in ("test/accuracy", "test/rmse", "test/loss") if name in found), "")
    pairs += [(test, page.number(found[test]))] if test else []
    pairs += [
        ("status", page.text(result["status"])),
        ("steps", page.number(result.get("steps"))),
        ("parameters", page.number(result.get("n_params"))),
        ("wall time", f"{page.number(result.get('wall_seconds'))} s"),
    ]
    note = ""
    if result.get("diverged"):
        note = "".join(f"{name} {page.text(v)}; " for name, v in result["diverged"].items())
        note = f"<p>Training diverged: {note[:-2]}.</p>"
    return page.facts(pairs) + note


def _curves(rows: list[dict[str, Any]]) -> str:
    names = dict.fromkeys(name.partition("/")[2] for row in rows for name in row if "/" in name)
    names = dict.fromkeys(["loss", "accuracy", *names, "grad_norm"])
    names["grad_norm"] = names.pop("grad_norm")  # last: it is looked at when something is wrong
    made = []
    for index, name in enumerate(names):
        found = []
        for colour, split in enumerate(("train", "validation")):
            points = [
                (row["step"], row[f"{split}/{name}"])
                for row in rows
                if isinstance(row.get(f"{split}/{name}"), int | float)
            ]
            if points:
                steps, values = zip(*points)
                found.append({"label": split, "steps": steps, "values": values, "colour": colour})
        if found:
            made.append(figures.curves(f"curve-{index}", f"{name} by step", found, name))
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
    return page.table(
        "Validation and test: of the best checkpoint; train: of the last logged step",
        ["metric", *splits],
        rows,
    )


def _classes(outcome: Outcome) -> list[str]:
    from sklearn import metrics

    assert outcome.probabilities is not None
    names = [str(name) for name in outcome.dataset.class_names]
    guesses = outcome.probabilities.argmax(axis=-1)
    matrix = metrics.confusion_matrix(outcome.targets, guesses, labels=range(len(names)))
    if len(names) <= MATRIX_CLASSES:
        shown = figures.confusion("confusions", matrix, names)
    else:
        pairs = figures.confusions(matrix, names)[:20]
        rows = [[page.text(a), page.text(b), page.number(count)] for a, b, count in pairs]
        shown = page.table("The most frequent confusions", ["true", "taken for", "times"], rows)
    made = [page.section("confusion", "What is taken for what", shown)]
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
    pictures = []
    if roc:
        which = "each class against the rest"
        if len(found) > CURVE_CLASSES:
            which = f"the {CURVE_CLASSES} of {len(names)} classes that are told apart worst"
        first, second = f"ROC and the area under it, {which}", f"Precision by recall, {which}"
        if len(names) == 2:
            first, second = (
                f"{words} of {one[0][0]}" for words, one in (("ROC, area", roc), ("PR, mean", pr))
            )
        axes = ("false positive rate", "true positive rate")
        pictures += [
            figures.lines("roc", first, roc, axes, diagonal=True),
            figures.lines("pr", second, pr, ("recall", "precision")),
        ]
    pictures.append(_reliability(outcome, guesses))
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
        "Confidence against the share that is right, in tenths",
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
        true = page.text(names[int(outcome.targets[index])])
        return true, f"{page.text(names[guess])} ({share:.0%})"

    drawn = _drawer(shape)
    if drawn is not None:
        cards = []
        for index in worst:
            true, guess = said(int(index))
            picture, smooth = drawn(outcome.inputs[index])
            joined = "predicted" if outcome.probabilities is None else "taken for"
            alternative = f"validation example {int(index)}: {true}, {joined} {guess}"
            cards.append(
                f'<figure><img alt="{alternative}" class="{"smooth" if smooth else ""}" '
                f'src="data:image/png;base64,{picture}"><figcaption>{true}, {joined} {guess}; '
                f"loss {page.number(float(outcome.losses[index]))}</figcaption></figure>"
            )
        shown = f'<div class="pictures">{"".join(cards)}</div>'
    else:
        names_of = outcome.dataset.feature_names
        size = int(np.prod(shape))
        features = [str(name) for name in names_of or [f"input {i}" for i in range(size)]][:12]
        rows = []
        for index in worst:
            true, guess = said(int(index))
            cells = [
                page.number(float(v)) for v in outcome.inputs[index].reshape(-1)[: len(features)]
            ]
            loss = page.number(float(outcome.losses[index]))
            rows.append([str(int(index)), true, guess, loss, *cells])
        header = ["example", "true", "predicted", "loss", *features]
        more = f", with the first 12 of {size} inputs" if size > len(features) else ""
        shown = page.table(f"By loss{more}", header, rows)
    note = "<p>The validation examples with the largest loss of the best checkpoint.</p>"
    return page.section("worst", "Where it is most wrong", note, shown)


def _drawer(shape: tuple[int, ...]) -> Callable[[np.ndarray], tuple[str, bool]] | None:
    """Returns how an example is drawn, as PNG in base64 and whether smoothly, or None."""
    if len(shape) == 3 and shape[-1] in (1, 3):
        return _picture
    if len(shape) == 2 and min(shape) >= 8:
        return _picture
    if (len(shape) == 1 and shape[0] >= 32) or (len(shape) == 2 and shape[-1] == 1):
        return _sequence
    return None


def _encoded(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _picture(values: np.ndarray) -> tuple[str, bool]:
    from PIL import Image

    pixels = np.nan_to_num(np.asarray(values, np.float64))
    low, high = pixels.min(), pixels.max()  # not all pictures use the whole range of their type
    pixels = (pixels - low) / (high - low or 1.0) * 255
    pixels = pixels.astype(np.uint8)
    image = Image.fromarray(
        pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    )
    longest = max(image.size)
    if longest > LARGEST_PICTURE:
        image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
        return _encoded(image), True
    grow = max(1, round(SMALLEST_PICTURE / longest))
    size = (image.width * grow, image.height * grow)
    return _encoded(image.resize(size, Image.Resampling.NEAREST)), longest > SMALLEST_PICTURE


def _sequence(values: np.ndarray) -> tuple[str, bool]:
    from PIL import Image, ImageDraw

    flat = np.nan_to_num(np.asarray(values, np.float64)).reshape(-1)
    low, high = flat.min(), flat.max()
    x = np.linspace(12, 372, len(flat))
    y = 180 - (flat - low) / (high - low or 1.0) * 168
    image = Image.new("RGBA", (384, 192), (0, 0, 0, 0))
    ImageDraw.Draw(image).line(list(zip(x, y)), fill=(59, 120, 194, 255), width=4)
    return _encoded(image.resize((192, 96), Image.Resampling.LANCZOS)), True
