"""What a first config is chosen by, and what is chosen: plain values, no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = ("table", "image", "sound", "text", "sequence", "mixed")
"""What the inputs are; ``mixed`` has several of the others."""
TASKS = ("classification", "multilabel", "regression")
"""What may be asked for; others are the user's own."""


@dataclass(frozen=True)
class Facts:
    """What a choice may depend on.

    Attributes:
      kind: of `KINDS`.
      rows: training examples.
      task: ``classification``, ``multilabel`` or ``regression``; another is the user's own.
      outputs: how many classes, labels, or numbers to predict.
      rarest: the share of examples of the rarest class, or with the rarest label.
      numbers: columns of numbers of a table.
      categories: how many categories each other column of it has.
      missing: columns of it that lack values.
      long_tail: whether the number to predict is positive with a long tail.
      shape: of one example's input; empty for several.
      sample_rate: of sounds.
      tokens: of most texts; 0 for no texts.
      inputs: the kind of each of several inputs, by name.
    """

    kind: str
    rows: int
    task: str
    outputs: int = 1
    rarest: float = 1.0
    numbers: int = 0
    categories: tuple[int, ...] = ()
    missing: int = 0
    long_tail: bool = False
    shape: tuple[int, ...] = ()
    sample_rate: int | None = None
    tokens: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)


class Choice(NamedTuple):
    """One key of a config.

    Attributes:
      key: dotted.
      value: what it is set to: a number, text, tuple, None, or dict of these.
      why: what speaks for it, in words that may hold names of the data's own.
      on: whether it is set; otherwise it stands in a comment, to be taken.
    """

    key: str
    value: Any
    why: str = ""
    on: bool = True


class Search(NamedTuple):
    """One key that a study may change.

    Attributes:
      key: dotted.
      kind: a function of `jdlopt.study.space`.
      values: its arguments: bounds or choices.
      role: ``scientific`` or ``nuisance``.
    """

    key: str
    kind: str
    values: tuple[Any, ...]
    role: str = "nuisance"


class Chosen(NamedTuple):
    """A first config but for its data, and what may be searched around it.

    Attributes:
      choices: the keys, in the order of a file.
      space: what a study may change.
      question: what such a study asks, in a sentence.
    """

    choices: tuple[Choice, ...]
    space: tuple[Search, ...]
    question: str


def sections(choices: Iterable[Choice]) -> dict[str, Any]:
    """Returns the nested config of the keys that are set.

    Example:
      >>> sections([Choice("model.name", "mlp"), Choice("data.group", "patient", on=False)])
      {'model': {'name': 'mlp'}}
    """
    made: dict[str, Any] = {}
    for choice in choices:
        if choice.on:
            *above, last = choice.key.split(".")
            place = made
            for name in above:
                place = place.setdefault(name, {})
            place[last] = choice.value
    return made
