"""What a task says of itself: all that depends on the kind of target, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from jdlopt.data.coding import Coder
from jdlopt.data.spec import DataSpec

Columns = dict[str, list[Any]]
"""Named columns, an example a row."""


class Decoded(NamedTuple):
    """What outputs mean.

    Attributes:
      values: one prediction an example, [n] or [n, k], in the coding of the targets.
      labels: it in words, one text an example; None for numbers.
    """

    values: Num[np.ndarray, "n *k"]
    labels: list[str] | None


@dataclass(frozen=True)
class Task:
    r"""A kind of target: how it is coded, learnt, measured and told. Functions and values alone.

    A task whose examples have a class at each of their positions (the words of a text, the pixels
    of an image) says so by its coder: ``coding.positions`` axes of a target are positions. Targets
    are [n, \*positions], `jdlopt.data.coding.PAD` where there is none; outputs are
    [n, \*positions, classes], of a model that has a field ``positions``; a bundled loss of rows is
    the mean over an example's positions (`jdlopt.losses.positions`).

    Attributes:
      name: what ``data.task`` calls it.
      coder: how raw targets are coded and padded.
      link: how outputs become probabilities: a key of `jdlopt.losses.LINKS`.
      losses: the bundled losses that are for it; the first is the default.
      loss_of: metric → the loss that is least where it is best, in place of the default where a
        config's ``train.monitor`` watches that metric.
      metrics: what evaluations measure while training, beside the loss.
      monitor: the metric that says which evaluation is best.
      judged: the metric by which two configs are compared.
      width: ``(spec, loss name) → outputs`` of the model's last layer.
      measured: ``(outputs, targets) → values`` that a training step measures beside the loss; pure.
        An ensemble's outputs have a leading axis of its models.
      decode: ``(outputs, probabilities or None, spec) → Decoded``.
      columns: ``(decoded, probabilities or None, spec) → columns`` of a file of predictions.
      shows: which findings and parts of reports apply, of `SHOWN`.
      told: ``(targets, spec) → texts``: targets in words, where they are neither classes, labels
        nor numbers of an example.
      of_texts: ``(decoded, probabilities or None, spec, texts) → (decoded, columns)``, in place of
        ``columns`` where the texts that the inputs were made of are known, and say more.
      teacher_forcing: ``(inputs as the model takes them, targets) → named inputs``, with those that
        targets make beside the others: what a decoder has written before each position. Training
        and evaluation give the model these; to predict, it writes targets from the others alone
        (`jdlopt.train.decoding`), and ``decode`` is given the tokens as outputs. Pure; None: there
        are no such inputs.
    """

    name: str
    coder: Coder
    link: str
    losses: tuple[str, ...]
    metrics: tuple[str, ...]
    monitor: str
    judged: str
    width: Callable[[DataSpec, str], int]
    measured: Callable[[Array, Array], dict[str, Float[Array, ""]]]
    decode: Callable[[np.ndarray, np.ndarray | None, DataSpec], Decoded]
    columns: Callable[[Decoded, np.ndarray | None, DataSpec], Columns]
    shows: frozenset[str] = frozenset()
    loss_of: Mapping[str, str] = field(default_factory=dict)
    told: Callable[[np.ndarray, DataSpec], list[str]] | None = None
    of_texts: (
        Callable[[Decoded, np.ndarray | None, DataSpec, Sequence[Any]], tuple[Decoded, Columns]]
        | None
    ) = None
    teacher_forcing: Callable[[Any, Array], dict[str, Array]] | None = None

    def default_loss(self, monitor: str | None) -> str:
        """Returns the loss of a config that names none, by the metric that it watches."""
        return self.loss_of.get((monitor or "").partition("/")[2], self.losses[0])


SHOWN = {
    "classes": "one class an example: confusions, calibration, shares of classes, doubtful labels",
    "labels": "any number of labels an example",
    "values": "numbers: mean squared error and R²",
    "entities": "tags of words: sentences with entities marked, and how good each kind is",
    "masks": "a class at each pixel: images, their masks and the predicted ones; overlap by class",
    "texts": "a text that is written for each example: what was to be changed of it",
    "transcripts": "texts that are heard: edits from what is said",
    "pairs": "two embeddings an example: what is nearest to each",
    "continuations": "texts: what the model writes behind the beginning of one",
    "simple models": "one target an example, which scikit-learn's forests and trees can predict",
}
"""What findings and reports ask a task for, and what it stands for."""
