"""Inputs that are no table, gone through once, some at a time: images, signals, audio, tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, UInt64

from jdlopt.data import preprocess
from jdlopt.data.check.examples import sampled
from jdlopt.data.check.finding import Finding, Part
from jdlopt.data.check.near_duplicates import fingerprints
from jdlopt.data.dataset import Dataset
from jdlopt.data.spec import InputSpec

VALUES = 1 << 24
"""So many values are read at a time."""
SIDE = 32
"""Places along each axis but the channels' that are left of an example for a closer look."""
LEAST_SIGNAL = 32
"""A vector without names for its values is a signal from this length on; before, a table's row."""
FEW_LEVELS = 64
FULL = 0.999
"""A sample of audio at least so loud is at its limit."""
CLIPPED = 0.001
"""Share of an example's samples at the limit, from which on it is clipped."""
SHORT = 3
"""A text of fewer tokens is very short."""


class Seen(NamedTuple):
    """What is kept of a split's examples.

    Attributes:
      prints: a fingerprint of each.
      chosen: the examples that are looked at more closely.
      small: those, shrunk to at most `SIDE` places along each axis, as vectors.
      low, high: each example's smallest and largest finite value; NaN where it has none.
      missing, infinite: how many of its values are NaN, and ±infinity.
      loud: the share of its values whose size is at least `FULL`; of tokens, how many are not 0.
      targets: each example's.
    """

    prints: UInt64[np.ndarray, " examples"]
    chosen: Int[np.ndarray, " chosen"]
    small: Float[np.ndarray, "chosen values"]
    low: Float[np.ndarray, " examples"]
    high: Float[np.ndarray, " examples"]
    missing: Int[np.ndarray, " examples"]
    infinite: Int[np.ndarray, " examples"]
    loud: Float[np.ndarray, " examples"]
    targets: Num[np.ndarray, " examples"]


def kind_of(spec: InputSpec) -> str:
    """Returns what an input is: table, signal, sequence, image, audio or text.

    A signal is a vector of at least `LEAST_SIGNAL` values that have no names; all else is what
    preprocessing takes it for.
    """
    kind = preprocess.kind_of(spec.shape, spec.dtype, spec.sample_rate)
    unnamed = spec.feature_names is None and spec.shape[0] >= LEAST_SIGNAL
    return "signal" if kind == "table" and unnamed else kind


def _chunks(dataset: Dataset, split: str) -> Iterator[Any]:
    pool, _ = dataset.parts[split]
    rows = dataset.rows(split)
    step = max(1, VALUES // max(1, math.prod(dataset.spec.input.shape)))
    for first in range(0, len(rows), step):
        yield dataset.pools[pool].read(rows[first : first + step])


def shrunk(inputs: Num[np.ndarray, "examples *shape"]) -> Float[np.ndarray, "examples values"]:
    """Returns examples as vectors, each axis but the channels' cut into `SIDE` parts at most.

    A part is the mean of its places. uint8 is divided by 255.

    Example:
      >>> shrunk(np.full((2, 64, 64, 3), 255, np.uint8)).shape
      (2, 3072)
    """
    values: np.ndarray = inputs.astype(np.float32)
    if inputs.dtype == np.uint8:
        values /= 255.0
    axes = range(1, max(2, values.ndim - 1))
    for axis in axes:
        length = values.shape[axis]
        most = SIDE if len(axes) > 1 else SIDE * SIDE
        if length > most:
            starts = np.linspace(0, length, most, endpoint=False).astype(int)
            sums = np.add.reduceat(values, starts, axis=axis)
            counts = np.diff(np.append(starts, length)).astype(np.float32)
            shape = [1] * values.ndim
            shape[axis] = most
            values = sums / counts.reshape(shape)
    return values.reshape(len(values), -1)


def look(dataset: Dataset, split: str) -> Seen:
    """Goes through a split and keeps what the findings need."""
    chosen = sampled(dataset.sizes[split])
    is_text = kind_of(dataset.spec.input) == "text"
    kept: list[tuple[np.ndarray, ...]] = []
    small, first = [], 0
    for inputs, targets in _chunks(dataset, split):
        flat = inputs.reshape(len(inputs), -1)
        here = chosen[(chosen >= first) & (chosen < first + len(inputs))] - first
        small.append(shrunk(inputs[here]))
        first += len(inputs)
        if flat.dtype.kind == "f":
            missing, infinite = np.isnan(flat), np.isinf(flat)
            finite = ~(missing | infinite)
            low = np.min(flat, axis=1, where=finite, initial=np.inf)
            high = np.max(flat, axis=1, where=finite, initial=-np.inf)
            low, high = (np.where(np.isfinite(v), v, np.nan) for v in (low, high))
            loud = (np.abs(flat) >= FULL).mean(axis=1)
        else:
            missing = infinite = np.zeros((len(flat), 1), bool)
            low, high = flat.min(axis=1), flat.max(axis=1)
            loud = (flat != 0).sum(axis=1) if is_text else np.zeros(len(flat))
        kept.append(
            (
                fingerprints(inputs),
                low.astype(np.float64),
                high.astype(np.float64),
                missing.sum(axis=1),
                infinite.sum(axis=1),
                loud.astype(np.float64),
                targets,
            )
        )
    prints, *others = (np.concatenate(column) for column in zip(*kept, strict=True))
    return Seen(prints, chosen, np.concatenate(small), *others)


def array_findings(
    kind: str, dtype: str, seen: Seen, rows: Int[np.ndarray, " examples"]
) -> list[Finding]:
    """Returns what the values of the training examples show.

    Args:
      kind: what `kind_of` says.
      dtype: of the inputs.
      seen: the training split.
      rows: what each example is called.
    """
    size = len(rows)

    def found(name: str, which: np.ndarray, severity: str, problem: str, **more: Any) -> Finding:
        places = np.flatnonzero(which)
        text = f"{len(places):,} of {size:,} training examples {more.pop('text')}"
        part = Part(more.pop("part", "examples"), rows[places], len(places))
        return Finding(
            name, severity, problem, text, len(places), size, "examples", parts=(part,), **more
        )

    empty = seen.low == seen.high
    made = [
        found(
            "missing", seen.missing > 0, "error", "missing values", text="hold NaN.",
            advice="Fill them in from the training split:",
        ),
        found(
            "infinite", seen.infinite > 0, "error", "infinite values", text="hold infinity.",
            advice="Correct these examples, or leave them out:",
        ),
    ]  # fmt: skip
    if kind == "text":
        made += [
            found(
                "empty_text", seen.loud == 0, "warning", "empty texts", text="have no token.",
                advice="Remove them: nothing can be learnt from them.",
            ),
            found(
                "short_text", (seen.loud > 0) & (seen.loud < SHORT), "note", "very short texts",
                text=f"have fewer than {SHORT} tokens.", advice="Look at some of them.",
            ),
        ]  # fmt: skip
    else:
        made.append(
            found(
                "blank",
                empty,
                "warning",
                "examples of one value only",
                text="have the same value everywhere.",
                advice="Look at them: are they blank or silent? Remove those that say nothing.",
            )
        )
    if kind == "image":
        made += _range(dtype, seen, found)
    if kind == "audio":
        made.append(
            found(
                "clipped",
                (seen.loud >= CLIPPED) & ~empty,
                "note",
                "clipped audio",
                text=f"have at least {CLIPPED:.1%} of their samples at the limit of their range.",
                advice="Record them less loudly, or let gain be varied: data.augment.gain=6.0",
            )
        )
    return [one for one in made if one.count]


def _range(dtype: str, seen: Seen, found: Any) -> list[Finding]:
    low, high = float(np.nanmin(seen.low)), float(np.nanmax(seen.high))
    if dtype == "uint8":
        if high >= FEW_LEVELS:
            return []
        return [
            found(
                "few_levels",
                np.ones(len(seen.low), bool),
                "note",
                "images that are dark",
                text=f"use the values {low:g} to {high:g} of 0 to 255 only.",
                advice="Give them the whole range:",
            )
        ]
    outside = (seen.low < 0) | (seen.high > 1)
    bytes_like = low >= 0 and high > 1 and high <= 255
    advice = (
        "They look like bytes that were stored as floats: store them as uint8, or scale them:"
        if bytes_like
        else "Image operations expect values from 0 to 1: scale them in the file, or:"
    )
    return [
        found(
            "outside_unit",
            outside,
            "warning",
            "images with values outside [0, 1]",
            text=f"have values outside 0 to 1; all lie in {low:.4g} to {high:.4g}.",
            advice=advice,
        )
    ]
