"""Beginnings of validation texts, and what the model writes behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jdlopt.data import text
from jdlopt.data.vocabulary import END_ID, PADDING_ID
from jdlopt.errors import UserError
from jdlopt.report.outcome import Sample
from jdlopt.train.continuation import Continuation
from jdlopt.train.continuing import continued
from jdlopt.train.experiment import Experiment
from jdlopt.train.state import Weights

SAMPLES = 6
"""Texts that are shown, from the first rows of the split."""
SHARE = 0.25
"""The share of a row that is its beginning."""
TEMPERATURE, TOP_P = 0.8, 0.95


def samples(
    experiment: Experiment,
    weights: Weights,
    inputs: Int[np.ndarray, "rows tokens"],
    names: Sequence[str],
) -> list[Sample]:
    """Returns what is written behind the beginnings of rows; nothing, of a model that can't.

    Args:
      experiment: of the run.
      weights: what writes.
      inputs: rows of tokens.
      names: what each is called.
    """
    assert experiment.spec.input.text is not None
    state, rows = experiment.spec.input.text.state, inputs[:SAMPLES]
    begun = max(1, int(SHARE * rows.shape[1]))
    count = min(rows.shape[1] - begun, 4 * begun) or 1
    starts = [row[:begun] for row in rows]
    try:
        best = continued(experiment, weights, starts, Continuation(count, temperature=0.0))
        drawn = continued(experiment, weights, starts, Continuation(count, TEMPERATURE, 0, TOP_P))
    except UserError:  # a model of another kind: its losses are shown
        return []
    ends = rows[:, begun : begun + count]
    ends = np.where(np.cumsum(ends == END_ID, axis=1) > 0, PADDING_ID, ends)
    columns = [
        text.decode(state, np.where(some == END_ID, PADDING_ID, some))
        for some in (np.stack(starts), ends, best, drawn)
    ]
    return [Sample(*one) for one in zip(names, *columns)]
