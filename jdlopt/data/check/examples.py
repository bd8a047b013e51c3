"""What the training examples show together: rare classes, and rows unlike the others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jdlopt.data.check.finding import NO_ROWS, Finding, Part

SAMPLE = 10_000
"""Examples that a model of the check is fitted on, and of each split that are compared closely."""
RARE = 10
"""A class of fewer examples can hardly be learnt or judged."""
UNEQUAL, VERY_UNEQUAL = 3.0, 10.0
"""How many times larger the largest class is than the smallest, for a note and for a warning."""
ODD = 0.65
"""The isolation forest's anomaly score, in [0, 1], from which on a row is odd; 0.5 is ordinary."""


def sampled(count: int, most: int = SAMPLE, seed: int = 0) -> Int[np.ndarray, " chosen"]:
    """Returns all places of ``count`` things, or ``most`` of them drawn by the seed, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def imbalance(targets: Int[np.ndarray, " examples"], class_names: Sequence[str]) -> list[Finding]:
    """Returns one finding if the classes' sizes in the training split are far apart.

    Example:
      >>> [found] = imbalance(np.array([0] * 90 + [1] * 5), ["common", "rare"])
      >>> found.where, found.numbers["ratio"]
      ('rare', 18.0)
    """
    counts = np.bincount(targets, minlength=len(class_names))
    order = np.argsort(counts, kind="stable")
    smallest, largest = counts[order[0]], counts.max()
    ratio = float(largest / max(1, smallest))
    if ratio < UNEQUAL:
        return []
    rare = [c for c in order if counts[c] < max(RARE, largest / VERY_UNEQUAL)] or [order[0]]
    parts = tuple(
        Part(str(class_names[c]), NO_ROWS, int(counts[c]), f"{counts[c]:,} examples") for c in rare
    )
    text = (
        f"The largest class has {largest:,} training examples, the smallest {smallest:,}: "
        f"{ratio:.1f} times as many. To guess {class_names[order[-1]]!r} always is right in "
        f"{largest / len(targets):.1%} of them."
    )
    shown = order[::-1][:50]
    numbers = {
        "names": [str(class_names[c]) for c in shown],
        "values": [int(counts[c]) for c in shown],
        "axis": "training examples",
        "log": ratio > 100,
        "ratio": ratio,
    }
    severity = "warning" if ratio >= VERY_UNEQUAL else "note"
    return [
        Finding(
            kind="imbalance",
            severity=severity,
            problem="unequal classes",
            text=text,
            count=int(sum(counts[c] for c in rare)),
            of=len(targets),
            unit="examples",
            advice=(
                "Show each class as often (or weigh it, loss.class_weights='balanced'), and watch "
                "a metric that counts classes alike:"
            ),
            parts=parts,
            numbers=numbers,
        )
    ]


def filled(
    features: Float[np.ndarray, "rows features"],
    train: Float[np.ndarray, "others features"] | None = None,
) -> Float[np.ndarray, "rows features"]:
    """Returns features with the median of their column for what is missing; 0 in an empty one.

    Args:
      features: of some rows.
      train: the rows whose medians these are; ``features`` by default.
    """
    train = features if train is None else train
    missing = np.isnan(features)
    if not missing.any():
        return features
    medians = np.zeros(features.shape[1])
    for column in np.flatnonzero(~np.isnan(train).all(axis=0)):
        medians[column] = np.nanmedian(train[:, column])
    return np.where(missing, medians, features)


def odd_rows(
    features: Float[np.ndarray, "rows features"], rows: Int[np.ndarray, " rows"]
) -> list[Finding]:
    """Returns the rows that an isolation forest (Liu, Ting & Zhou, 2008) sets apart quickly.

    Args:
      features: of training rows; missing ones count as the median.
      rows: what each row is called.
    """
    if len(features) < 2 * RARE:
        return []
    from sklearn.ensemble import IsolationForest

    chosen = sampled(len(features))
    values = filled(features[chosen])
    forest = IsolationForest(random_state=0).fit(values)
    scores = -forest.score_samples(values)
    order = np.argsort(-scores, kind="stable")
    odd = order[scores[order] >= ODD]
    if not len(odd):
        return []
    counts, edges = np.histogram(scores, bins=30)
    of = "" if len(chosen) == len(features) else f", of {len(features):,}"
    return [
        Finding(
            kind="odd_rows",
            severity="note",
            problem="rows unlike the others",
            text=(
                f"An isolation forest sets {len(odd):,} of {len(chosen):,} training rows{of} "
                f"apart: their score is at least {ODD:g}, where 0.5 is ordinary."
            ),
            count=len(odd),
            of=len(chosen),
            unit="rows",
            advice="Look at the first of them; leave them out if they are errors:",
            parts=(Part("oddest first", rows[chosen][odd], len(odd)),),
            numbers={
                "names": [f"{(low + high) / 2:.2f}" for low, high in itertools.pairwise(edges)],
                "values": counts.tolist(),
                "axis": "rows by score",
                "upright": True,
            },
        )
    ]
