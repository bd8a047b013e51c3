"""Next token: what comes after each token of texts, which is how a model learns to write them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from jdlopt.data import next_tokens, text
from jdlopt.data.coders import CODERS
from jdlopt.data.spec import DataSpec
from jdlopt.data.vocabulary import PADDING_ID
from jdlopt.tasks.positions import share_right
from jdlopt.tasks.task import Columns, Decoded, Task


def width(spec: DataSpec, loss: str) -> int:
    """Returns one output a token of the vocabulary."""
    return spec.num_classes


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of a batch's tokens that are the likeliest ones."""
    return {"token_accuracy": share_right(outputs, targets)}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the likeliest token after each position."""
    tokens = outputs.argmax(-1).astype(np.int32)
    return Decoded(tokens, told(tokens, spec))


def told(targets: np.ndarray, spec: DataSpec) -> list[str]:
    """Returns the texts that rows of tokens are."""
    assert spec.input.text is not None
    return text.decode(spec.input.text.state, np.where(targets < 0, PADDING_ID, targets))


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the likeliest tokens as a text."""
    assert decoded.labels is not None
    return {"prediction": decoded.labels}


NEXT_TOKEN = Task(
    name=next_tokens.TASK,
    coder=CODERS[next_tokens.TASK],
    link="softmax",
    losses=("cross_entropy", "focal"),
    metrics=("bits_per_byte", "perplexity"),
    monitor="validation/bits_per_byte",
    judged="bits_per_byte",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    told=told,
    shows=frozenset({"continuations"}),
)
