"""Multi-label: any number of labels an example, each there or not."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jdlopt.data.coders import CODERS
from jdlopt.data.spec import DataSpec
from jdlopt.tasks.task import Columns, Decoded, Task

BETWEEN = "|"
"""What stands between the labels of a prediction."""


def width(spec: DataSpec, loss: str) -> int:
    """Returns one output a label."""
    return spec.num_classes


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of labels that are wrong in a batch; empty where targets are mixed."""
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        return {}
    return {"hamming_loss": jnp.mean((outputs > 0) != (targets > 0))}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the labels of each example whose probability is above their threshold."""
    assert probabilities is not None
    there = spec.decision.labels(probabilities)
    names = np.array(spec.class_names, dtype=object)
    return Decoded(there.astype(np.int32), [BETWEEN.join(names[row]) for row in there])


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the labels in one text, and the probability of each."""
    assert decoded.labels is not None and probabilities is not None
    shares = dict(zip(spec.class_names, probabilities.T.tolist(), strict=True))
    return {
        "prediction": decoded.labels,
        **{f"probability_{name}": values for name, values in shares.items()},
    }


MULTILABEL = Task(
    name="multilabel",
    coder=CODERS["multilabel"],
    link="sigmoid",
    losses=("binary_cross_entropy",),
    metrics=("f1_micro", "hamming_loss"),
    monitor="validation/f1_micro",
    judged="f1_micro",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"labels"}),
)
