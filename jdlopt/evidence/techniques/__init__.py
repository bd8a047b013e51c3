"""The catalogue: every technique that jdlopt can try, as a pure change of a config."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jdlopt.config import find_part
from jdlopt.errors import UserError, listing, nearest
from jdlopt.evidence.techniques.compression import COMPRESSION
from jdlopt.evidence.techniques.data import DATA
from jdlopt.evidence.techniques.ensembles import ENSEMBLES
from jdlopt.evidence.techniques.entry import AIMS, GROUPS, KINDS, Change, Facts, Technique, values
from jdlopt.evidence.techniques.optimisation import OPTIMISATION
from jdlopt.evidence.techniques.precision import PRECISION
from jdlopt.evidence.techniques.regularisation import REGULARISATION
from jdlopt.evidence.techniques.removal import REMOVAL
from jdlopt.evidence.techniques.structure import STRUCTURE
from jdlopt.evidence.techniques.tables import TABLES
from jdlopt.evidence.techniques.transfer import TRANSFER

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

__all__ = [
    "AIMS", "GROUPS", "KINDS", "TECHNIQUES", "Change", "Facts", "Technique", "applicable", "change",
    "facts_of", "find", "read", "values",
]  # fmt: skip

TECHNIQUES: dict[str, Technique] = {
    one.name: one
    for one in (
        *DATA,
        *TABLES,
        *STRUCTURE,
        *REGULARISATION,
        *REMOVAL,
        *OPTIMISATION,
        *PRECISION,
        *TRANSFER,
        *ENSEMBLES,
        *COMPRESSION,
    )
}
"""Every technique by its name."""
COUNTED = frozenset({"classes", "labels", "entities", "masks"})
"""What a task shows whose classes a technique may balance."""


def find(name: str) -> Technique:
    """Returns the technique of a name, or the one that ``package.module:NAME`` means.

    One of the user's own is called by that path.

    Raises:
      UserError: there is none, with the nearest one.
    """
    if name in TECHNIQUES:
        return TECHNIQUES[name]
    if ":" not in name:
        raise UserError(
            f"technique {name!r} is unknown.{nearest(name, TECHNIQUES)} `jdlopt techniques` lists "
            "them."
        )
    own = find_part(name, {}, "technique", Technique, or_function=False)
    assert isinstance(own, Technique)
    return replace(own, name=name)


def read(text: str) -> tuple[Technique, int]:
    """Returns the technique and the variant that ``NAME`` or ``NAME:VARIANT`` mean.

    Args:
      text: the name may be a dotted path; variants are counted from 1.

    Returns:
      The technique, and which of its changes it is, counted from 0.

    Raises:
      UserError: it can't be read, or the name is unknown.

    Example:
      >>> one, variant = read("rotate:2")
      >>> one.name, variant
      ('rotate', 1)
    """
    match = re.fullmatch(r"\s*((?:[\w.]+:)?[A-Za-z_][\w-]*)(?::(\d+))?\s*", text)
    if match is None:
        raise UserError(
            f"technique {text!r} can't be read; write NAME, NAME:VARIANT, or "
            "package.module:NAME for one of your own."
        )
    return find(match[1]), max(0, int(match[2] or 1) - 1)


def facts_of(config: Config, dataset: Any) -> Facts:
    """Returns what is known of a task from its resolved config and its opened dataset."""
    from jdlopt.data import feed
    from jdlopt.data.augment import inputs_of
    from jdlopt.data.dataset import class_counts
    from jdlopt.data.named import contents
    from jdlopt.tasks import find_task
    from jdlopt.train.components import num_outputs, total_steps

    imbalance = 1.0
    if COUNTED & find_task(dataset.spec.task).shows:
        counts = class_counts(dataset)
        imbalance = float(counts.max() / max(1, counts.min()))
    size = dataset.sizes["train"]
    return Facts(
        task=dataset.spec.task,
        inputs={
            name: inputs_of(dataset.spec, config.data.preprocess, one)
            for name, one in contents(dataset.spec.named).items()
        },
        num_outputs=num_outputs(config, dataset.spec),
        train_size=size,
        validation_size=dataset.sizes["validation"],
        total_steps=total_steps(config, dataset.spec),
        steps_per_epoch=feed.steps_per_epoch(size, config.data.batch_size),
        imbalance=imbalance,
        categorical=any(one.categories for one in dataset.spec.named.values()),
        positions=dataset.spec.positions,
    )


def why_not(one: Technique, config: Config, facts: Facts) -> str | None:
    """Returns why a technique can't be used on a config, or None."""
    reason = one.applies(config, facts)
    if reason is not None:
        return reason
    changes = one.changes(config, facts)
    if not changes:
        return "The config has it already."
    if facts.positions and all("model.name" in change for change in changes):
        from jdlopt.models import at_positions  # takes long to import

        names = [change["model.name"] for change in changes]
        if not any(map(at_positions, names)):
            return f"model.name={names[0]!r} has one row of outputs an example, not one a position."
    place = config.model.pretrained
    if place is not None and all(any(map(_reshapes, change)) for change in changes):
        return f"The model starts from weights of another structure, {place!r}."
    return None


KEEPING = (
    "model.dropout_rate", "model.drop_path_rate", "model.dtype", "model.remat", "model.scan_layers",
    "model.freeze_norm", "model.batch_norm_groups", "model.lora_", "model.ensemble",
    "model.quantize.", "model.prune.", "model.modality_dropout",
)  # fmt: skip
"""Keys of the model that leave the parameters which it starts from as they are."""
RESHAPING = tuple(
    f"data.preprocess.{key}" for key in ("pca", "encode", "bins", "missing_indicator", "resize")
)
"""Keys of preprocessing that give a model inputs of another shape."""


def _reshapes(key: str) -> bool:
    """Whether a key, changed, asks for other parameters than weights from outside have."""
    return (key.startswith("model.") and not key.startswith(KEEPING)) or key in RESHAPING


def change(name: str, config: Config, facts: Facts) -> tuple[Change, ...]:
    """Returns the variants of a technique on a resolved config, the best guess first.

    Raises:
      UserError: the name is unknown, or the technique can't be used here.
    """
    one = find(name)
    reason = why_not(one, config, facts)
    if reason is not None:
        raise UserError(f"technique {name} can't be used on this config. {reason}")
    return one.changes(config, facts)


def applicable(config: Config, facts: Facts, names: Iterable[str] = ()) -> list[Technique]:
    """Returns the techniques that change something in a config, by their prior.

    Args:
      config: resolved.
      facts: of its task.
      names: what was asked for; the user's own among them, by dotted paths, are looked at as well.

    Raises:
      ConfigError: one of the user's own can't be found.
    """
    every = [*TECHNIQUES.values(), *(find(name) for name in sorted(names) if ":" in name)]
    found = [one for one in every if why_not(one, config, facts) is None]
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
