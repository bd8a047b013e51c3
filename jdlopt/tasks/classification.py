"""Classification: one of several classes an example."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jdlopt.data.coders import CODERS
from jdlopt.data.spec import DataSpec
from jdlopt.tasks.task import Columns, Decoded, Task


def width(spec: DataSpec, loss: str) -> int:
    """Returns the outputs of a classifier: one a class; of two classes one may score class 1."""
    return 1 if loss == "binary_cross_entropy" and spec.num_classes == 2 else spec.num_classes


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of a batch that is classified right; empty where targets are mixed.

    Of an ensemble's outputs it is the mean share of its models.
    """
    if targets.ndim != 1 or not jnp.issubdtype(targets.dtype, jnp.integer):
        return {}
    guesses = (
        outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs[..., 0] > 0).astype(jnp.int32)
    )
    return {"accuracy": jnp.mean(guesses == targets)}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the likeliest class of each example, or of two the one a threshold decides for."""
    assert probabilities is not None
    classes = spec.decision.classes(probabilities)
    return Decoded(classes, [spec.class_names[index] for index in classes])


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the class, and the probability of each."""
    assert decoded.labels is not None and probabilities is not None
    shares = dict(zip(spec.class_names, probabilities.T.tolist(), strict=True))
    return {
        "prediction": decoded.labels,
        **{f"probability_{name}": values for name, values in shares.items()},
    }


CLASSIFICATION = Task(
    name="classification",
    coder=CODERS["classification"],
    link="softmax",
    losses=("cross_entropy", "binary_cross_entropy", "focal"),
    metrics=("accuracy",),
    monitor="validation/accuracy",
    judged="accuracy",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"classes", "simple models"}),
)
