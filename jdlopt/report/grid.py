"""A picture of examples in rows and of what was done to them in columns, drawn with Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from jdlopt.report.columns import row_of
from jdlopt.report.samples import Column, Samples

Limit = float | np.ndarray
SIDE = 96
"""Pixels of the shorter side of a cell."""
WIDE = 160
"""Pixels that a cell of lines, bars or words is wide."""
GAP, LEFT, TOP = 6, 84, 34
MOST_LINES = 8
"""A sequence of more channels is drawn as a picture."""
LEAST_LINE = 32
"""A vector of fewer values is drawn as bars."""
MOST_NAMED, NAMED_WIDE = 12, 220
"""Columns of a table that are written out, and pixels that such a cell is wide."""
INK, SOFT, BACK = (59, 120, 194), (92, 97, 102), (255, 255, 255)
COLOURS = (INK, (192, 122, 28), (63, 155, 108), (180, 86, 107), (122, 103, 184), (79, 133, 147))
DARK = 0.25
"""Bytes that all lie below this share of their range are shown as if the largest were white."""


def png(samples: Sequence[Samples], examples: int = 8) -> bytes:
    """Returns the picture as the bytes of a PNG file.

    Images are shown as they are, signals as lines, spectrograms as pictures with time to the right,
    texts as words, a table's raw columns by name and value, and what is made of them as bars.
    Columns that can be compared share their range of values.

    Args:
      samples: what to draw: an input, or several of the same examples.
      examples: rows.
    """
    buffer = io.BytesIO()
    draw(samples, examples).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw(samples: Sequence[Samples], examples: int = 8) -> Any:
    """Returns the picture as a Pillow image; see `png`."""
    from PIL import Image, ImageDraw

    labels = samples[0].labels
    count = min(examples, len(labels))
    drawn: list[tuple[list[str], list[np.ndarray]]] = []
    for one in samples:
        ranges = {space: _range(one, space, count) for space in ("raw", "model")}
        drawn += [
            (
                _lines(column, one.input),
                [_cell(one, column, row, ranges[column.space]) for row in range(count)],
            )
            for column in one.columns
        ]
    widths = [max(cell.shape[1] for cell in cells) for _, cells in drawn]
    heights = [max(cells[row].shape[0] for _, cells in drawn) for row in range(count)]
    size = (LEFT + sum(widths) + GAP * (len(widths) + 1), TOP + sum(heights) + GAP * (count + 1))
    canvas = Image.new("RGB", size, BACK)
    pen = ImageDraw.Draw(canvas)
    font = _font()
    x = LEFT + GAP
    for (title, cells), width in zip(drawn, widths, strict=True):
        for line, words in enumerate(title):
            fitting = _cut(words, width + GAP - 2, font)
            pen.text((x, 3 + 14 * line), fitting, fill=INK if line == 0 else SOFT, font=font)
        y = TOP + GAP
        for cell, height in zip(cells, heights, strict=True):
            canvas.paste(Image.fromarray(cell), (x, y))
            y += height + GAP
        x += width + GAP
    y = TOP + GAP
    for label, height in zip(labels, heights, strict=False):
        fitting = _cut(printable(label, 40), LEFT - GAP, font)
        pen.text((GAP, y + height // 2 - 7), fitting, fill=SOFT, font=font)
        y += height + GAP
    return canvas


def printable(text: str, most: int = 80) -> str:
    r"""Returns text from outside on one line, without control characters, cut to a length.

    Example:
      >>> printable("two\nlines\x1b[31m"), printable("abcdef", 4)
      ('two�lines�[31m', 'abc…')
    """
    shown = "".join(letter if letter.isprintable() else "�" for letter in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(12)


def _lines(column: Column, which: str) -> list[str]:
    change = "" if column.change is None else f"changes {column.change:.3g}"
    label = f"{which}: {column.label}" if which else column.label
    return [printable(label, 40), change]


def _cut(words: str, width: float, font: Any) -> str:
    """Returns the letters that fit a width."""
    while words and font.getlength(words) > width:
        words = words[:-1]
    return words


def _range(samples: Samples, space: str, count: int) -> tuple[Limit, Limit]:
    """Returns the smallest and largest value that is drawn in one space.

    Raw columns of a table have no scale in common: each has its own.
    """
    shown = [c.values[:count] for c in samples.columns if c.space == space]
    if not shown:
        return 0.0, 1.0
    if samples.kind == "table" and space == "raw":
        values = np.where(np.isfinite(shown[0]), shown[0], 0.0).astype(np.float64)
        low = np.minimum(values.min(axis=0), 0.0)
        return low, np.maximum(values.max(axis=0), low + (values.max(axis=0) == low))
    if shown[0].dtype == np.uint8:
        high = float(shown[0].max()) / 255.0
        return 0.0, high if 0 < high < DARK else 1.0
    finite = [values[np.isfinite(values)] for values in shown]
    finite = [values for values in finite if values.size]
    if not finite:
        return 0.0, 1.0
    low = min(float(values.min()) for values in finite)
    high = max(float(values.max()) for values in finite)
    if samples.kind == "image" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def _cell(
    samples: Samples, column: Column, row: int, limits: tuple[Limit, Limit]
) -> UInt8[np.ndarray, "height width 3"]:
    values = column.values[row]
    if samples.kind == "text" and values.dtype.kind == "i":
        return _words(values, samples.tokens)
    if samples.kind == "table" and column.space == "raw" and samples.names:
        return _named(values, samples)
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 255.0
    low, high = limits
    known = np.where(np.isfinite(values), values, low).astype(np.float64)
    scaled = np.clip((known - low) / (high - low), 0, 1)
    if scaled.ndim == 3:
        return _picture(scaled if scaled.shape[-1] in (1, 3) else scaled.mean(-1, keepdims=True))
    if scaled.ndim == 2 and scaled.shape[1] > MOST_LINES:
        return _picture(scaled.T[::-1, :, None])
    if scaled.ndim == 2:
        return _curves(scaled.T)
    if scaled.ndim == 1 and len(scaled) >= LEAST_LINE and samples.kind != "table":
        return _curves(scaled[None])
    missing = ~np.isfinite(values.reshape(-1))
    zero = np.broadcast_to(np.clip(-low / (high - low), 0, 1), scaled.shape)
    return _bars(scaled.reshape(-1), missing, zero.reshape(-1))


def _picture(values: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "height width 3"]:
    from PIL import Image

    pixels = (np.broadcast_to(values, (*values.shape[:2], 3)) * 255).round().astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = SIDE / min(image.size)
    longest = max(image.size) * factor
    factor *= min(1.0, 2 * SIDE / longest)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    return np.asarray(image.resize(size, how))


def _canvas(width: int = WIDE, height: int = SIDE) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), (246, 246, 243))
    return image, ImageDraw.Draw(image)


def _curves(lines: Float[np.ndarray, "channels time"]) -> UInt8[np.ndarray, "height width 3"]:
    image, pen = _canvas()
    for number, line in enumerate(lines):
        x = np.linspace(2, WIDE - 3, len(line))
        y = SIDE - 4 - line * (SIDE - 8)
        colour = COLOURS[number % len(COLOURS)]
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        pen.line(points if len(points) > 1 else points * 2, fill=colour, width=1)
    return np.asarray(image)


def _bars(
    values: Float[np.ndarray, " features"],
    missing: Bool[np.ndarray, " features"],
    zeros: Float[np.ndarray, " features"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Bars from zero; a missing value is a grey strip."""
    image, pen = _canvas()
    edges = np.linspace(2, WIDE - 2, len(values) + 1)
    for left, right, value, absent, zero in zip(edges, edges[1:], values, missing, zeros):
        end = max(left, right - (1 if len(values) < WIDE // 3 else 0))
        if absent:
            pen.rectangle((left, 2, end, SIDE - 3), fill=(217, 217, 212))
            continue
        top, ground = (SIDE - 4 - height * (SIDE - 8) for height in (value, zero))
        pen.rectangle((left, min(top, ground), end, max(top, ground)), fill=INK)
    return np.asarray(image)


def _named(
    values: Num[np.ndarray, " columns"], samples: Samples
) -> UInt8[np.ndarray, "height width 3"]:
    """The first columns of a table by name and value."""
    cells = row_of(values, samples.names, samples.categories, samples.offsets)
    lines = list(zip(samples.names, cells, strict=True))[:MOST_NAMED]
    height = max(SIDE, 14 * (len(lines) + (len(cells) > MOST_NAMED)) + 6)
    image, pen = _canvas(NAMED_WIDE, height)
    font, half = _font(), NAMED_WIDE // 2
    for place, (name, value) in enumerate(lines):
        pen.text((3, 2 + 14 * place), _cut(printable(name), half - 6, font), fill=SOFT, font=font)
        shown = _cut(printable(value), half - 6, font)
        pen.text((half, 2 + 14 * place), shown, fill=INK, font=font)
    if len(cells) > MOST_NAMED:
        more = f"and {len(cells) - MOST_NAMED:,} columns more"
        pen.text((3, 2 + 14 * len(lines)), more, fill=SOFT, font=font)
    return np.asarray(image)


def _words(ids: Num[np.ndarray, " tokens"], tokens: tuple[str, ...]) -> UInt8[np.ndarray, "h w 3"]:
    image, pen = _canvas()
    words = [tokens[i] if 0 <= i < len(tokens) else str(i) for i in ids.tolist() if i != 0]
    lines, line = [], ""
    for word in words[:60]:
        word = printable(word, 20)
        if len(line) + len(word) > 24:
            lines.append(line)
            line = ""
        line += f" {word}" if line else word
    rows = math.floor(SIDE / 14)
    for place, text in enumerate([*lines, line][:rows]):
        pen.text((3, 2 + 14 * place), text, fill=SOFT, font=_font())
    return np.asarray(image)
