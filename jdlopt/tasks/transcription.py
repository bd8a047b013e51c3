"""Transcription: what is said in a sound, as text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from jdlopt.data.coders import CODERS
from jdlopt.data.coding import BLANK
from jdlopt.data.spec import DataSpec
from jdlopt.data.transcript_coding import TASK, collapsed, texts_of
from jdlopt.tasks.prefix_beam import beam_search
from jdlopt.tasks.task import Columns, Decoded, Task


def width(spec: DataSpec, loss: str) -> int:
    """Returns the classes: the blank, and each character or piece."""
    return spec.num_classes


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of steps whose likeliest class is the blank, in padding too."""
    return {"blanks": (outputs.argmax(-1) == BLANK).mean()}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns what each example says: by the likeliest path, or by ``data.beam_width`` prefixes."""
    if spec.beam_width > 1 and probabilities is not None:
        symbols = beam_search(probabilities, spec.beam_width)
    else:
        symbols = collapsed(np.asarray(outputs).argmax(axis=-1).astype(np.int32))
    return Decoded(symbols, texts_of(symbols, spec.class_names))


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the text."""
    assert decoded.labels is not None
    return {"prediction": decoded.labels}


def told(targets: np.ndarray, spec: DataSpec) -> list[str]:
    """Returns the texts that targets spell."""
    return texts_of(targets, spec.class_names)


TRANSCRIPTION = Task(
    name=TASK,
    coder=CODERS[TASK],
    link="softmax",
    losses=("ctc",),
    metrics=("wer", "cer"),
    monitor="validation/wer",
    judged="wer",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    shows=frozenset({"transcripts"}),
    told=told,
)
