"""What a run's best checkpoint says of the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdlopt.data.named import Inputs
from jdlopt.data.spec import DataSpec


class Guesses(NamedTuple):
    """The class that is predicted of each example, or of each of its pixels.

    Attributes:
      classes: its number [n], or [n, height, width].
      confidence: its probability, the same shape.
    """

    classes: np.ndarray
    confidence: np.ndarray


class Sample(NamedTuple):
    """What is written behind the beginning of a text.

    Attributes:
      name: what the text is called.
      start: its beginning.
      true: how it goes on.
      best: how the likeliest tokens go on.
      drawn: how drawn ones do.
    """

    name: str
    start: str
    true: str
    best: str
    drawn: str


class Outcome(NamedTuple):
    """What the best checkpoint says of the validation split.

    Attributes:
      inputs: raw, as the data holds them: one array, or named ones.
      targets: classes [n], labels of 0 and 1 [n, labels], values [n] or [n, outputs], or a class at
        each position.
      outputs: the model's.
      probabilities: [n, classes or labels]; None for a regression, and where there are so many
        classes, or one at each pixel, that only ``likeliest`` is known, and no outputs.
      losses: per example.
      spec: what is known of the data; its task says what is shown.
      names: what each example is called; empty counts them.
      counts: training examples of each class or label; None where they are not known, or the task
        has none.
      likeliest: the likeliest class, where that alone is known.
      samples: what is written behind the beginnings of texts, where the next token was learnt;
        there are no outputs then.
    """

    inputs: Inputs
    targets: np.ndarray
    outputs: np.ndarray
    probabilities: np.ndarray | None
    losses: np.ndarray
    spec: DataSpec
    names: Sequence[str] = ()
    counts: np.ndarray | None = None
    likeliest: Guesses | None = None
    samples: Sequence[Sample] = ()

    def name(self, index: int) -> str:
        """Returns what an example is called."""
        return self.names[index] if self.names else f"example {index:,}"

    @property
    def guesses(self) -> Guesses:
        """What is guessed of each example, of one class each."""
        if self.likeliest is not None:
            return self.likeliest
        assert self.probabilities is not None
        classes = self.spec.decision.classes(self.probabilities)
        return Guesses(classes, self.probabilities[np.arange(len(classes)), classes])
