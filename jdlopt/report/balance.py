"""How many examples each class has, and what guessing the most frequent one always would score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jdlopt.metrics import scores
from jdlopt.report.figures import COLOURS, scale, trace
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Figure, Table, number

MOST_BARS = 30
"""Classes in the figure, the rarest."""
UNEQUAL = 3.0
"""Times that the largest class is larger than the smallest, from which on it is said what helps."""
RARE = (
    "An accuracy hardly counts classes with few examples: watch balanced_accuracy "
    "(train.monitor='validation/balanced_accuracy') and each recall. Rare classes get more weight "
    "by data.sampling='balanced' or loss.class_weights='balanced'."
)


class Balance(NamedTuple):
    """What a template shows.

    Attributes:
      text: what the constant guess scores beside the model.
      advice: what helps rare classes; empty where none is rare.
      table: the two by each metric.
      figure: the recall of the rarest classes with its interval; None where no class has examples.
    """

    text: str
    advice: str
    table: Table
    figure: Figure | None


def interval(hits: int, count: int, level: float = 0.95) -> str:
    """Returns Wilson's interval of a share in words; empty where there is nothing to count.

    Example:
      >>> interval(8, 10), interval(0, 0)
      ('0.49 to 0.943', '')
    """
    if not count:
        return ""
    low, high = bounds(hits, count, level)
    return f"{low:.3g} to {high:.3g}"


def bounds(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's (1927) interval of a share.

    Args:
      hits: of those counted; at most ``count``.
      count: at least 1.
      level: how often the interval holds the share.
    """
    from scipy import stats

    found = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def balance(outcome: Outcome, split: scores.Split) -> Balance | None:
    """Returns how the classes are balanced; None where there is no example.

    Args:
      outcome: of the validation split; its targets are classes.
      split: these, and the predicted classes.
    """
    targets, names = outcome.targets, outcome.spec.class_names
    if not len(targets):
        return None
    hits, support, _ = scores.tally(split)
    counts = support if outcome.counts is None else outcome.counts
    most = int(np.argmax(counts))
    constant = scores.split_of(targets, np.full(len(targets), most), len(names))
    rows = [("model", *_scores(split)), (f"always {names[most]}", *_scores(constant))]
    header = ["guess", "accuracy", "balanced accuracy", "F1 (macro)"]
    right, always = (f"{accuracy:.1%}" for _, accuracy, *_ in rows)
    which = "validation" if outcome.counts is None else "training"
    text = (
        f"Always guessing {names[most]}, the most frequent class of the {which} split "
        f"({_share(int(counts[most]), int(counts.sum()))}), is right for {always} of the "
        f"validation examples; the model for {right}."
    )
    rare = int(np.argmin(counts))
    uneven = counts[most] >= UNEQUAL * max(1, counts[rare])
    told = f"The rarest is {names[rare]} ({_share(int(counts[rare]), int(counts.sum()))}). {RARE}"
    return Balance(
        text,
        told if uneven else "",
        Table("The model and a constant guess on the validation split", header, rows),
        _figure(names, counts, support, hits),
    )


def _scores(split: scores.Split) -> tuple[float, float, scores.Value]:
    """Returns accuracy, balanced accuracy and macro F1, as metrics say them."""
    right = float(np.mean(split.leaves["classes"] == split.leaves["predicted"]))
    return right, scores.balanced_accuracy(split), scores.averaged(scores.f1, "macro")(split)


def _share(count: int, of: int) -> str:
    return f"{count:,} examples, {count / max(1, of):.1%}"


def _figure(
    names: Sequence[str],
    counts: Int[np.ndarray, " classes"],
    support: Int[np.ndarray, " classes"],
    hits: Int[np.ndarray, " classes"],
) -> Figure | None:
    total = max(1, int(counts.sum()))
    order = [c for c in np.argsort(counts, kind="stable").tolist() if support[c]][:MOST_BARS]
    if not order:
        return None
    recalls = [float(hits[c] / support[c]) for c in order]
    ends = [bounds(int(hits[c]), int(support[c])) for c in order]
    places = list(range(len(order)))
    labels = [f"{names[c]} ({counts[c] / total:.1%}) " for c in order]
    dots = trace(
        "markers", recalls, places, marker={"color": COLOURS[0], "size": 8},
        error_x={
            "type": "data", "symmetric": False, "color": COLOURS[0],
            "array": [high - one for one, (_, high) in zip(recalls, ends)],
            "arrayminus": [one - low for one, (low, _) in zip(recalls, ends)],
        },
    )  # fmt: skip
    layout = {
        "xaxis": scale("recall", range=[-0.02, 1.02]),
        "yaxis": scale("", autorange="reversed", showgrid=False, tickvals=places, ticktext=labels),
    }
    which = f"the {len(order)} rarest classes" if len(order) < len(names) else "each class"
    caption = f"Recall of {which} with its 95 % interval, the rarest first; in brackets, its share"
    told = "; ".join(f"{names[c]}: {number(one)}" for c, one in list(zip(order, recalls))[:12])
    return Figure(
        "recalls", caption, f"{caption}. {told}.", [dots], layout, 110 + 26 * len(order)
    )  # fmt: skip
