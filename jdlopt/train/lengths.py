"""Transcripts against the steps that a model has for their sounds."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdlopt.data.dataset import Dataset
from jdlopt.data.transcript_coding import steps_needed
from jdlopt.data.transcripts import TranscribedPool
from jdlopt.train.tracing import Traceable


def steps_of(experiment: Traceable) -> int:
    """Returns how many steps of outputs a model has for an input, from shapes alone."""

    def outputs(inputs: Any) -> jax.Array:
        state = experiment.init(0)
        model = experiment.components.model
        params, hparams = state.params, state.hparams["model"]
        return model.apply(params, state.model_state, inputs, hparams, key=None, train=False)[0]

    return jax.eval_shape(outputs, experiment.seen(1)).shape[1]


def unreachable(experiment: Traceable, dataset: Dataset) -> list[str]:
    """Says in words which transcripts of training and validation need more steps than they have.

    A sound has its share of the steps, by its length; where that isn't known, all of them.

    Args:
      experiment: of a transcription.
      dataset: its data.
    """
    steps = steps_of(experiment)
    count, first = 0, ""
    for split in ("train", "validation"):
        name, rows = dataset.parts[split][0], dataset.rows(split)
        pool = dataset.pools[name]
        needed, had = steps_needed(dataset.targets(split)), np.full(len(rows), steps)
        if isinstance(pool, TranscribedPool):
            had = 1 + pool.lengths[rows] * steps // pool.samples
        lacking = np.flatnonzero(needed > had)
        count += len(lacking)
        if len(lacking) and not first:
            row = int(lacking[0])
            place = f"{split} example {row}"
            if isinstance(pool, TranscribedPool):
                place = pool.places[int(rows[row])]
            first = f"{place} needs {int(needed[row])} and has {int(had[row])}"
    if not count:
        return []
    return [
        f"model: {count:,} transcripts need more steps than the model has for their sound (one a "
        f"symbol, one more between equal ones): {first}. Make smaller steps (model.strides, "
        "data.preprocess.hop) or larger symbols (data.text.tokenizer='bpe'), or take these "
        "examples out."
    ]
