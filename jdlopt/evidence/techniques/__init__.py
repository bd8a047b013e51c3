"""The catalogue: every technique that jdlopt can try, as a pure change of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdlopt.errors import UserError, listing, nearest
from jdlopt.evidence.techniques.data import DATA
from jdlopt.evidence.techniques.ensembles import ENSEMBLES
from jdlopt.evidence.techniques.entry import AIMS, GROUPS, KINDS, Change, Facts, Technique
from jdlopt.evidence.techniques.optimisation import OPTIMISATION
from jdlopt.evidence.techniques.precision import PRECISION
from jdlopt.evidence.techniques.regularisation import REGULARISATION
from jdlopt.evidence.techniques.structure import STRUCTURE
from jdlopt.evidence.techniques.transfer import TRANSFER

__all__ = [
    "AIMS", "GROUPS", "KINDS", "TECHNIQUES", "Change", "Facts", "Technique", "applicable", "change",
    "facts_of", "find",
]  # fmt: skip

TECHNIQUES: dict[str, Technique] = {
    one.name: one
    for one in (
        *DATA,
        *STRUCTURE,
        *REGULARISATION,
        *OPTIMISATION,
        *PRECISION,
        *TRANSFER,
        *ENSEMBLES,
    )
}
"""Every technique by its name."""


def find(name: str) -> Technique:
    """Returns the technique of a name.

    Raises:
      UserError: there is none, with the nearest one.
    """
    if name not in TECHNIQUES:
        raise UserError(
            f"technique {name!r} is unknown.{nearest(name, TECHNIQUES)} `jdlopt techniques` lists "
            "them."
        )
    return TECHNIQUES[name]


def facts_of(config: Mapping[str, Any], dataset: Any) -> Facts:
    """Returns what is known of a task from its resolved config and its opened dataset."""
    from jdlopt.data import feed
    from jdlopt.data.augment import inputs_of
    from jdlopt.train.components import num_outputs, total_steps

    imbalance = 1.0
    if dataset.spec.num_classes:
        counts = np.bincount(dataset.targets("train"), minlength=dataset.spec.num_classes)
        imbalance = float(counts.max() / max(1, counts.min()))
    size = dataset.sizes["train"]
    return Facts(
        task=dataset.spec.task,
        kind=inputs_of(dataset.spec, config["data"]["preprocess"]).kind,
        input_shape=tuple(dataset.spec.input.shape),
        input_dtype=str(dataset.spec.input.dtype),
        num_outputs=num_outputs(config, dataset.spec),
        train_size=size,
        validation_size=dataset.sizes["validation"],
        total_steps=total_steps(config, dataset.spec),
        steps_per_epoch=feed.steps_per_epoch(size, config["data"]["batch_size"]),
        imbalance=imbalance,
        categorical=bool(dataset.spec.input.categories),
    )


def why_not(one: Technique, config: Mapping[str, Any], facts: Facts) -> str | None:
    """Returns why a technique can't be used on a config, or None."""
    reason = one.applies(config, facts)
    if reason is None and not one.changes(config, facts):
        return "The config has it already."
    return reason


def change(name: str, config: Mapping[str, Any], facts: Facts) -> tuple[Change, ...]:
    """Returns the variants of a technique on a resolved config, the best guess first.

    Raises:
      UserError: the name is unknown, or the technique can't be used here.
    """
    one = find(name)
    reason = why_not(one, config, facts)
    if reason is not None:
        raise UserError(f"technique {name} can't be used on this config. {reason}")
    return one.changes(config, facts)


def applicable(config: Mapping[str, Any], facts: Facts) -> list[Technique]:
    """Returns the techniques that change something in a config, by their prior.

    Args:
      config: resolved.
      facts: of its task.
    """
    found = [one for one in TECHNIQUES.values() if why_not(one, config, facts) is None]
    return sorted(found, key=lambda one: -one.prior)


def check_filters(group: str | None, aim: str | None) -> None:
    """Checks what a listing is filtered by.

    Raises:
      UserError: it is unknown, with the nearest known word.
    """
    for flag, word, known in (("--group", group, GROUPS), ("--aim", aim, AIMS)):
        if word is not None and word not in known:
            raise UserError(
                f"{flag}: {word!r} is unknown.{nearest(word, known)} Known: {listing(known)}."
            )
