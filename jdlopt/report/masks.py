"""Images beside their masks and the predicted ones, and how well each class is found."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Num, UInt8

from jdlopt.data.mask_colours import coloured
from jdlopt.data.named import by_name
from jdlopt.metrics import masks as scores
from jdlopt.report import figures
from jdlopt.report.cards import Cards
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Figure, Table, number

EXAMPLES = 9
"""Examples that are shown, from the whole split."""
MOST_CLASSES = 40
"""Classes that have a row and a colour; of more, those with the lowest overlap."""
SMALLEST, LARGEST, GAP = 96, 192, 3
"""Pixels that the longer side of an image has at least and at most, and between two."""


def masks(outcome: Outcome) -> dict[str, object]:
    """Returns the overlap of each class, what is taken for what, and some examples."""
    names, found = outcome.spec.class_names, outcome.guesses.classes
    pixels = scores.counted(outcome.targets, found, len(names))
    count = len(outcome.targets)
    places = np.unique(np.linspace(0, count - 1, min(EXAMPLES, count)).astype(int))
    return {
        "each": _table(pixels, names),
        "confusion": {"figure": _confusion(pixels, names), "table": None},
        "masks": {
            "legend": _legend(pixels, names),
            "examples": side_by_side(outcome, places),
        },
    }


def side_by_side(outcome: Outcome, places: Sequence[int] | Int[np.ndarray, " n"]) -> Cards:
    """Returns some examples as pictures: the image, its mask, and the predicted one.

    Args:
      outcome: what is predicted.
      places: of the examples, in the split.
    """
    classes = len(outcome.spec.class_names)
    images = _images(outcome)
    pictures: list[Mapping[str, object]] = []
    for index in map(int, places):
        target, found = outcome.targets[index], outcome.guesses.classes[index]
        pixels = scores.counted(target, found, classes)
        overlap = number(scores.mean_of(pixels, scores.iou(pixels)))
        line = f"mean IoU {overlap}; loss {number(float(outcome.losses[index]))}"
        name = outcome.name(index)
        parts = [_shown(images[index]), coloured(target), coloured(found)]
        pictures.append({
            "png": _png(parts), "smooth": False, "name": name, "caption": line,
            "alternative": f"{name}: the image, its mask and the predicted one; {line}",
        })  # fmt: skip
    return Cards(pictures, None)


def _images(outcome: Outcome) -> Num[np.ndarray, "n height width *channels"]:
    """Returns the images that masks are of: of several inputs, the first of their size."""
    shape = outcome.spec.target_shape
    given = by_name(outcome.inputs)
    name = next(name for name, one in outcome.spec.named.items() if one.shape[:2] == shape)
    found: np.ndarray = given[name]
    return found


def _shown(image: Num[np.ndarray, "height width *channels"]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns an image as bytes in colour; others than bytes fill the range."""
    values = image[..., None] if image.ndim == 2 else image
    values = values if values.shape[-1] in (1, 3) else values[..., :1]
    if values.dtype != np.uint8:
        values = np.nan_to_num(values.astype(np.float64))
        low, high = values.min(), values.max()
        values = ((values - low) / (high - low or 1.0) * 255).astype(np.uint8)
    return np.broadcast_to(values, (*values.shape[:2], 3))


def _png(parts: Sequence[UInt8[np.ndarray, "height width 3"]]) -> str:
    """Returns pictures of one size side by side, as PNG in base64."""
    from PIL import Image

    longest = max(parts[0].shape[:2])
    grow = max(1, round(SMALLEST / longest))
    made = []
    for one in parts:
        image = Image.fromarray(np.ascontiguousarray(one))
        if longest > LARGEST:
            image.thumbnail((LARGEST, LARGEST), Image.Resampling.NEAREST)
        made.append(
            image.resize((image.width * grow, image.height * grow), Image.Resampling.NEAREST)
        )
    width, height = made[0].size
    whole = Image.new("RGBA", (len(made) * (width + GAP) - GAP, height), (0, 0, 0, 0))
    for place, image in enumerate(made):
        whole.paste(image, (place * (width + GAP), 0))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _order(pixels: scores.Pixels) -> list[int]:
    """Returns the classes, those with the lowest overlap first; those without a pixel last."""
    _, true, predicted = scores.parts(pixels)
    keys = np.where(true + predicted > 0, scores.iou(pixels), 2.0)
    order: list[int] = np.argsort(keys, kind="stable")[:MOST_CLASSES].tolist()
    return order


def _table(pixels: scores.Pixels, names: Sequence[str]) -> Table:
    """Returns the share, IoU and Dice coefficient of each class, the lowest IoU first."""
    right, true, predicted = scores.parts(pixels)
    there = true + predicted > 0
    iou, dice = scores.iou(pixels), scores.dice(pixels)
    rows: list[list[object]] = [
        [
            names[place],
            float(true[place] / max(1, true.sum())),
            *((float(values[place]) if there[place] else None) for values in (iou, dice)),
            float(right[place] / true[place]) if true[place] else None,
        ]
        for place in _order(pixels)
    ]
    means: list[object] = [scores.mean_of(pixels, iou), scores.mean_of(pixels, dice)]
    rows.append(["mean of all that occur", None, *means, None])
    return Table(
        "Overlap of each class, the lowest IoU first",
        ["class", "share of pixels", "IoU", "Dice", "found"],
        rows,
    )


def _confusion(pixels: scores.Pixels, names: Sequence[str]) -> Figure | None:
    """Returns which classes pixels are taken for."""
    if len(names) > figures.MATRIX_CLASSES:
        return None
    right, whole = int(np.trace(pixels)), int(pixels.sum())
    words = f"Pixels by class: {right:,} of {whole:,} are on the diagonal."
    axes = ("predicted", "true")
    return figures.matrix("confusions", words, words, pixels, names, axes, shares=True)


def _legend(pixels: scores.Pixels, names: Sequence[str]) -> list[dict[str, str]]:
    """Returns the colour of each class, as a picture, and its name."""
    made = [
        {"png": _png([coloured(np.full((8, 8), place))]), "name": names[place]}
        for place in sorted(_order(pixels))
    ]
    return [*made, {"png": _png([coloured(np.full((8, 8), -1))]), "name": "void"}]
