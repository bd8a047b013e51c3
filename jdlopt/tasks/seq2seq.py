"""Sequence to sequence: a text that is written from another: a translation, a summary, a form."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jdlopt.data.coders import CODERS
from jdlopt.data.coding import END
from jdlopt.data.named import DECODER_INPUT, by_name
from jdlopt.data.spec import DataSpec
from jdlopt.data.target_texts import TASK
from jdlopt.data.target_texts import decode as texts_of
from jdlopt.tasks.positions import share_right
from jdlopt.tasks.task import Columns, Decoded, Task


def width(spec: DataSpec, loss: str) -> int:
    """Returns one output a token of the targets' vocabulary."""
    return spec.num_classes


def teacher_forcing(inputs: PyTree[Array], targets: Int[Array, "n length"]) -> dict[str, Array]:
    """Returns the inputs, and beside them what the decoder has before each token of the target.

    It is the target moved by one place, after an `END` token, as in fairseq. Williams and Zipser,
    "A learning algorithm for continually running fully recurrent neural networks", 1989.

    Example:
      >>> from jdlopt.data.coding import PAD
      >>> targets = jnp.array([[7, 5, END, PAD]])
      >>> teacher_forcing(jnp.ones((1, 2)), targets)["decoder_input"].tolist()
      [[0, 7, 5, 0]]
    """
    before = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=END)
    return {**by_name(inputs), DECODER_INPUT: jnp.where(before < 0, END, before)}


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of tokens that are the likeliest, after those of the target before them."""
    return {"token_accuracy": share_right(outputs, targets)}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the tokens that were written, and the text that they spell."""
    tokens = outputs.astype(np.int32)
    return Decoded(tokens, told(tokens, spec))


def told(targets: np.ndarray, spec: DataSpec) -> list[str]:
    """Returns the texts that targets are."""
    assert spec.target_text is not None
    return texts_of(targets, spec.target_text)


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the texts."""
    assert decoded.labels is not None
    return {"prediction": decoded.labels}


SEQ2SEQ = Task(
    name=TASK,
    coder=CODERS[TASK],
    link="softmax",
    losses=("cross_entropy", "focal"),
    metrics=("token_accuracy",),
    monitor="validation/loss",
    judged="token_accuracy",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"texts"}),
    told=told,
    teacher_forcing=teacher_forcing,
)
