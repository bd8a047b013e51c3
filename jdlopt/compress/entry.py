"""What a method of compression is, and what it may know of a run before it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jdlopt.config import AnyConfig
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.evidence.techniques import Facts
from jdlopt.train.experiment import Experiment
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights
from jdlopt.train.step import Batch

AIMS = (SIZE, SPEED)
"""What a method makes less: the bytes of the weights, the time of a prediction."""


class Given(NamedTuple):
    """What is known of the run that is compressed.

    Attributes:
      run: its directory.
      experiment: with its data; ``experiment.config`` is the resolved config.
      weights: of its best checkpoint.
      facts: of its task, as techniques know them.
    """

    run: Path
    experiment: Experiment
    weights: Weights
    facts: Facts

    @property
    def config(self) -> Config:
        """The run's resolved config."""
        return self.experiment.config


TrainingBatches = Callable[[], Iterator[Batch]]
"""Gives one epoch of training batches (``inputs`` raw, ``targets``) anew at each call, in the order
of the run's seed; never an example of the validation or test split."""


@dataclass(frozen=True)
class Train:
    """A stage that trains, from each seed's own weights so far.

    The weights so far must fit the changed config: every parameter that it has is there with its
    shape. What its model state has beyond theirs, such as masks and ranges, starts as in a new
    model.

    Attributes:
      change: dotted keys and values, on the config so far. Where it names no
        ``optim.learning_rate``, that is ``rate`` times the baseline's.
      epochs: as a share of the baseline's.
      rate: of the learning rate, as a share of the baseline's.
      anew: whether it starts from random weights instead, such as for other widths.
    """

    change: Mapping[str, object] = field(default_factory=dict)
    epochs: float = 0.5
    rate: float = 0.1
    anew: bool = False


@dataclass(frozen=True)
class Apply:
    """A stage that computes other weights, and maybe another config, without training.

    Attributes:
      name: says all that it does, numbers included: stages of equal names are the same.
      function: ``(config, weights, batches) → (config, weights)``, pure: of one seed.
    """

    name: str
    function: Callable[[Config, Weights, TrainingBatches], tuple[AnyConfig, Weights]]


@dataclass(frozen=True)
class Candidate:
    """One way to a smaller or faster model: stages, one after the other, for every seed alike.

    Attributes:
      name: of it among all candidates, such as ``half_width``.
      stages: what is done with each seed's own baseline weights.
      stored: ``(config, weights) → bytes``, what the weights take where this method stores them in
        another way than `jdlopt.train.inference.stored_bytes` says of the config.
    """

    name: str
    stages: tuple[Train | Apply, ...]
    stored: Callable[[Config, Weights], int] | None = None


def chained(first: Candidate, second: Candidate) -> Candidate:
    """Returns a candidate that does what one does, and then what another does."""
    return Candidate(
        f"{first.name} + {second.name}",
        (*first.stages, *second.stages),
        second.stored or first.stored,
    )


@dataclass(frozen=True)
class Method:
    """A named way to compress runs.

    Attributes:
      name: of the table.
      aims: what it makes less, of `AIMS`.
      summary: one sentence.
      cost: in words.
      source: where it comes from.
      candidates: what there is to try on a run, the gentlest first.
      why_not: why it can't be used on a run, or None.
      follows: whether its candidates, which only compute, may come after another method's as well.
    """

    name: str
    aims: tuple[str, ...]
    summary: str
    cost: str
    source: str
    candidates: Callable[[Given], tuple[Candidate, ...]]
    why_not: Callable[[Given], str | None] = lambda given: None
    follows: bool = False
