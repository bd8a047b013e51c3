"""What a run's best checkpoint says of the validation split."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jdlopt.data.named import Inputs
from jdlopt.data.spec import DataSpec


class Outcome(NamedTuple):
    """What the best checkpoint says of the validation split.

    Attributes:
      inputs: raw, as the data holds them: one array, or named ones.
      targets: classes [n], labels of 0 and 1 [n, labels], or values [n] or [n, outputs].
      outputs: the model's.
      probabilities: [n, classes or labels], or None for a regression.
      losses: per example.
      spec: what is known of the data; its task says what is shown.
    """

    inputs: Inputs
    targets: np.ndarray
    outputs: np.ndarray
    probabilities: np.ndarray | None
    losses: np.ndarray
    spec: DataSpec
