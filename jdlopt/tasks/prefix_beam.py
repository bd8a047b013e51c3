"""The likeliest symbols of probabilities step by step, whatever their path: prefix beam search."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from jdlopt.data.coding import BLANK
from jdlopt.data.transcript_coding import collapsed

UNLIKELY = 1e-6
"""A class that is less likely than this at a step begins no path there."""
Prefix = tuple[int, ...]


def likeliest_symbols(probabilities: Float[np.ndarray, "steps classes"], width: int) -> Prefix:
    """Returns the symbols whose paths are the likeliest together, as far as a beam search finds.

    A greedy decoder takes the likeliest path; several paths may spell the same. Of each prefix the
    probability of its paths that end in a blank is kept apart from that of the others. Hannun et
    al., "First-pass large vocabulary continuous speech recognition using bi-directional recurrent
    DNNs", 2014, without a language model.

    At each step a prefix goes on with the blank, with its last symbol, and with the ``2 * width``
    likeliest classes: the others would hardly be among the prefixes that are kept. Where a
    probability is no finite number, the symbols are those of the likeliest path.

    Args:
      probabilities: of each class at each step; class 0 is the blank.
      width: how many prefixes are kept from step to step.

    Example:
      >>> likeliest_symbols(np.array([[0.6, 0.4], [0.6, 0.4]]), 2)  # 0.36 for nothing, 0.64 for 1
      (1,)
    """
    if not np.isfinite(probabilities).all():
        path = collapsed(probabilities.argmax(axis=-1)[None])[0]
        return tuple(one for one in path.tolist() if one != BLANK)
    beam: dict[Prefix, tuple[float, float]] = {(): (1.0, 0.0)}
    rows = probabilities.astype(np.float64)
    likeliest = np.argsort(-rows, axis=1, kind="stable")[:, : 2 * width]
    for row, some in zip(rows, likeliest, strict=True):
        chosen = {BLANK: float(row[BLANK])}
        chosen |= {int(one): float(row[one]) for one in some if row[one] > UNLIKELY}
        found: dict[Prefix, list[float]] = {}
        for prefix, (blank, other) in beam.items():
            own = prefix[-1] if prefix else BLANK
            for symbol, share in (chosen | {own: float(row[own])}).items():
                if symbol == BLANK:
                    found.setdefault(prefix, [0.0, 0.0])[0] += (blank + other) * share
                    continue
                longer = found.setdefault((*prefix, symbol), [0.0, 0.0])
                if prefix and symbol == prefix[-1]:
                    found.setdefault(prefix, [0.0, 0.0])[1] += other * share
                    longer[1] += blank * share
                else:
                    longer[1] += (blank + other) * share
        kept = sorted(found.items(), key=lambda item: -math.fsum(item[1]))[:width]
        total = sum(math.fsum(shares) for _, shares in kept) or 1.0
        beam = {prefix: (one / total, two / total) for prefix, (one, two) in kept}
    return max(beam, key=lambda prefix: sum(beam[prefix]))


def beam_search(
    probabilities: Float[np.ndarray, "n steps classes"], width: int
) -> Int[np.ndarray, "n steps"]:
    """Returns the `likeliest_symbols` of each example, then `BLANK`."""
    made = np.full(probabilities.shape[:2], BLANK, np.int32)
    for row, shares in zip(made, probabilities, strict=True):
        symbols = likeliest_symbols(shares, width)
        row[: len(symbols)] = symbols
    return made
