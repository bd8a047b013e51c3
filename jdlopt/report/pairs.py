"""Pairs in a run's report: what is nearest to examples whose own second is far."""

from __future__ import annotations

import numpy as np

from jdlopt.data import named, text
from jdlopt.metrics.pairs import ranks_of
from jdlopt.report.cards import cards
from jdlopt.report.outcome import Outcome
from jdlopt.tasks.pair_outputs import parted, unit

EXAMPLES = 12
"""Examples that are shown."""
NEAREST = 3
"""Of each, so many of the nearest."""
LETTERS = 60
"""Letters of a text that is near."""


def neighbours(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of pairs, as ``neighbours``.

    They are the examples by whose first input most wrong seconds are as near as a right one, and
    the nearest seconds of each.
    """
    pairs, targets = parted(outcome.outputs), outcome.targets
    first, second = unit(pairs.first), unit(pairs.second)
    ranks = ranks_of(first, second, targets, targets)
    order = np.argsort(-ranks, kind="stable")[:EXAMPLES]
    similar = first[order] @ second.T
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :NEAREST]
    told = _seconds(outcome, np.unique(nearest))
    said = []
    for row, places, near in zip(order.tolist(), nearest.tolist(), similar, strict=True):
        words = [
            f"{told[place]} ({near[place]:.2f}{', right' * bool(targets[place] == targets[row])})"
            for place in places
        ]
        said.append((f"{ranks[row] + 1:,} of {len(targets):,}", "; ".join(words)))
    return {
        "neighbours": cards(
            outcome.spec,
            named.rows(outcome.inputs, order),
            [outcome.name(index) for index in order.tolist()],
            ["rank", "nearest"],
            said,
            [f"rank {rank}; nearest: {words}" for rank, words in said],
            "By rank of the nearest right one",
        )
    }


def _seconds(outcome: Outcome, places: np.ndarray) -> dict[int, str]:
    """Returns what to call the second inputs of some examples: texts as they are."""
    name, one = list(outcome.spec.named.items())[1]
    if one.text is None:
        return {place: outcome.name(place) for place in places.tolist()}
    ids = named.by_name(outcome.inputs)[name][places]
    texts = (words[:LETTERS] for words in text.decode(one.text.state, ids))
    return dict(zip(places.tolist(), texts, strict=True))
