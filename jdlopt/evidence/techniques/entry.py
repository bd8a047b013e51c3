"""What an entry of the catalogue is, and what it may know of the task before it is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from jdlopt import config as configs
from jdlopt.data.augment import Inputs
from jdlopt.errors import listing

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

GROUPS = (
    "data", "structure", "regularisation", "loss", "optimisation", "precision", "transfer",
    "ensembles", "compression",
)  # fmt: skip
AIMS = (
    "accuracy", "generalisation", "speed", "memory", "size", "inference speed", "robustness",
)  # fmt: skip
"""``speed`` and ``memory`` are those of training; ``size`` is what the weights take."""
KINDS = ("image", "sequence", "table", "text", "audio")


class Facts(NamedTuple):
    """What is known of a task before anything is trained.

    Attributes:
      task: ``classification`` or ``regression``.
      inputs: what is known of each input, by its name.
      num_outputs: classes, or 1.
      train_size, validation_size: examples.
      total_steps, steps_per_epoch: updates.
      imbalance: how many times the largest class is as large as the smallest; 1 without classes.
      categorical: whether a table has columns of categories.
      positions: axes of a target that are positions, with a class each.
    """

    task: str
    inputs: Mapping[str, Inputs]
    num_outputs: int
    train_size: int
    validation_size: int
    total_steps: int
    steps_per_epoch: int
    imbalance: float
    categorical: bool
    positions: int = 0

    def of_kinds(self, *kinds: str) -> list[str]:
        """Returns the names of the inputs that are of a kind."""
        return [name for name, one in self.inputs.items() if one.kind in kinds]


Change = dict[str, Any]
"""Dotted keys and their values."""
Changes = Callable[["Config", Facts], tuple[Change, ...]]
Applies = Callable[["Config", Facts], str | None]
RATE = {"optim.learning_rate": ("around", 4.0)}
"""The learning rate: what nearly every change of optimisation or structure must be tuned with."""


def _always(config: Config, facts: Facts) -> str | None:
    return None


@dataclass(frozen=True)
class Technique:
    """A named, pure change of a config, with the gain that it claims.

    Attributes:
      name: of the catalogue.
      group: one of `GROUPS`.
      aims: what it is to make better, of `AIMS`.
      summary: one sentence.
      changes: ``(resolved config, facts) → variants``, the best guess first; empty where there is
        nothing to change.
      cost: in words.
      source: where it comes from.
      prior: how often it is expected to help, from 0 to 1; it orders what is tried, no more.
      applies: ``(resolved config, facts)`` → None, or why it can't be used here.
      nuisance: what must be tuned with it for a fair comparison: distributions by dotted key, or
        ``("around", factor)`` for the values within a factor of the config's own.
    """

    name: str
    group: str
    aims: tuple[str, ...]
    summary: str
    changes: Changes
    cost: str
    source: str
    prior: float
    applies: Applies = _always
    nuisance: Mapping[str, Any] = field(default_factory=dict)


# --- how entries say what they change -------------------------------------------------------------


def value_of(config: Config | Mapping[str, Any], key: str) -> Any:
    """Returns a key's value, or None where the config's parts have no such key."""
    node: Any = configs.to_dict(config)
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return node


def has(config: Config, key: str) -> bool:
    """Says whether a config's parts have a key."""
    return key in configs.flat(config)


def values(key: str, *candidates: object) -> Changes:
    """Returns changes of one key to each of some values that it does not have yet."""

    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        now = value_of(config, key)
        return tuple({key: one} for one in candidates if one != now)

    return changes


def together(*variants: Change) -> Changes:
    """Returns changes of several keys at a time, those that change nothing left out."""

    def changes(config: Config, facts: Facts) -> tuple[Change, ...]:
        return tuple(
            dict(one)
            for one in variants
            if any(value_of(config, key) != value for key, value in one.items())
        )

    return changes


def unless(*reasons: Callable[["Config", Facts], str | None]) -> Applies:
    """Returns the first reason that there is."""

    def applies(config: Config, facts: Facts) -> str | None:
        return next((found for one in reasons if (found := one(config, facts))), None)

    return applies


def needs_key(key: str) -> Applies:
    """The config's parts must have a key."""

    def applies(config: Config, facts: Facts) -> str | None:
        section = key.partition(".")[0]
        part = value_of(config, f"{section}.name")
        return None if has(config, key) else f"{section} {part!r} has no {key}."

    return applies


def needs_unset(key: str, none: object = None) -> Applies:
    """A key must still be as it is where nothing was asked for."""

    def applies(config: Config, facts: Facts) -> str | None:
        now = value_of(config, key)
        return None if now in (none, None) else f"{key} is {now!r} already."

    return applies


def needs_kind(*kinds: str) -> Applies:
    """The input, or one of several, must be of a kind; the others are left as they are."""

    def applies(config: Config, facts: Facts) -> str | None:
        return None if facts.of_kinds(*kinds) else f"It is for {' or '.join(kinds)} inputs."

    return applies


def needs_only(*kinds: str, beside: tuple[str, ...] = ()) -> Applies:
    """All inputs must be of a kind, since all are changed; but for those ``beside`` them."""

    def applies(config: Config, facts: Facts) -> str | None:
        if not facts.of_kinds(*kinds):
            return f"It is for {' or '.join(kinds)} inputs."
        fitting = facts.of_kinds(*kinds, *beside)
        others = [name for name in facts.inputs if name not in fitting]
        return f"It would change {listing(others)} too, which it is not for." if others else None

    return applies


def needs_one_input(config: Config, facts: Facts) -> str | None:
    """The model that it brings in takes one input."""
    if len(facts.inputs) == 1:
        return None
    return f"It takes one input; there are {len(facts.inputs)}: {listing(facts.inputs)}."


def needs_several_inputs(config: Config, facts: Facts) -> str | None:
    """It changes how several inputs are put together."""
    return None if len(facts.inputs) > 1 else "There is one input alone."


def not_for(*tasks: str) -> Applies:
    """The task must be none of some."""

    def applies(config: Config, facts: Facts) -> str | None:
        return f"It is not for {facts.task}." if facts.task in tasks else None

    return applies


def needs_task(*tasks: str) -> Applies:
    """The task must be one of some."""

    def applies(config: Config, facts: Facts) -> str | None:
        return None if facts.task in tasks else f"It is for {' and '.join(tasks)}."

    return applies
