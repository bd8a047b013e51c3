"""Pairs: two inputs an example, embedded so that those of one example are near to each other."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jdlopt.data import pair_coding
from jdlopt.data.spec import DataSpec
from jdlopt.tasks.pair_outputs import nearest, parted, unit
from jdlopt.tasks.task import Columns, Decoded, Task


def width(spec: DataSpec, loss: str) -> int:
    """Returns 0: how wide embeddings are, the model's key ``features`` says."""
    return 0


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of a batch whose nearest second is one of its own."""
    pairs = parted(outputs)
    found = (pairs.first @ pairs.second.T).argmax(axis=-1)
    return {"recall_at_1": jnp.mean(targets[found] == targets)}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns for each example the number of the one, of those given, whose second is nearest."""
    pairs = parted(outputs)
    found = nearest(unit(pairs.first), unit(pairs.second))
    return Decoded(found.astype(np.int32), None)


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns which of the examples given is the nearest, counted from 0."""
    return {"prediction": decoded.values.tolist()}


PAIRS = Task(
    name=pair_coding.TASK,
    coder=pair_coding.CODER,
    link="identity",
    losses=("clip", "siglip"),
    metrics=("mean_recall", "recall_at_1"),
    monitor="validation/mean_recall",
    judged="mean_recall",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"pairs"}),
)
