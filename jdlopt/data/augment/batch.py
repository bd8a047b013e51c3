"""What a training step does to its batch: preprocessing, and the augmentations of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from jdlopt.data.augment import AUGMENTATIONS, find_own
from jdlopt.data.augment.augmentation import Augmentation, Stage
from jdlopt.data.augment.image.flip import alternating_flip, fingerprints
from jdlopt.data.augment.image.warp import warp

Strengths = Mapping[str, Any]
"""The floats of ``data.augment``, as in ``TrainState.hparams``."""


class Chosen(NamedTuple):
    """An augmentation that a config asks for.

    Attributes:
      name: of its random key.
      part: its entry.
      apply: its function.
      values: ``strengths → (strength, keyword parameters)``.
    """

    name: str
    part: Augmentation
    apply: Callable[..., Any]
    values: Callable[[Strengths], tuple[Any, dict[str, Any]]]


def chosen(section: Mapping[str, Any], vocabulary: Mapping[str, int] | None = None) -> list[Chosen]:
    """Returns what a resolved ``data.augment`` asks for, in the order of use.

    Args:
      section: the resolved ``data.augment``.
      vocabulary: token → id, for augmentations of words.

    Raises:
      ConfigError: an augmentation of the user's own is not there.
      DataError: a file that an augmentation reads can't be used.
    """
    found = []
    for name, part in AUGMENTATIONS.items():
        if section.get(name) is not None:
            found.append(_chosen(name, part, section, lambda given: given, name, vocabulary))
    for label, given in section.get("own", {}).items():
        part = find_own(given["name"], f"data.augment.own.{label}.name")

        def floats(strengths: Strengths, label: str = label) -> Strengths:
            return strengths["own"][label]

        found.append(_chosen(f"own.{label}", part, given, floats, "strength", vocabulary))
    return found


def _chosen(
    name: str,
    part: Augmentation,
    section: Mapping[str, Any],
    floats: Callable[[Strengths], Strengths],
    strength: str,
    vocabulary: Mapping[str, int] | None,
) -> Chosen:
    """An entry with what its section says of it.

    Args:
      name: of its random key.
      part: the entry.
      section: where its keys are.
      floats: strengths → those of the section.
      strength: the key of its strength.
      vocabulary: token → id.
    """
    keys = {key: section[key] for key in part.fields() if key in section}
    if part.prepare is not None:
        apply, keys = part.prepare(vocabulary, **keys), {}
    else:
        apply = part.apply

    def values(strengths: Strengths) -> tuple[Any, dict[str, Any]]:
        mine = floats(strengths)
        return mine[strength], {key: mine.get(key, value) for key, value in keys.items()}

    return Chosen(name, part, apply, values)


def make_augment(
    section: Mapping[str, Any],
    *,
    size: int,
    batch_size: int,
    num_outputs: int,
    classes: int,
    vocabulary: Mapping[str, int] | None = None,
) -> Callable[..., dict[str, Array]]:
    """Returns ``(key, batch, strengths, preprocess) → batch``, preprocessing included. Pure.

    The batch that it takes has ``inputs`` and ``targets``, and ``step`` where ``alternating_flip``
    is on. Where examples are mixed, targets come back as distributions.

    Args:
      section: the resolved ``data.augment``; its strengths only say what is in the program.
      size: training examples.
      batch_size: of the global batch.
      num_outputs: of the model.
      classes: of the dataset; 0 for a regression.
      vocabulary: token → id, for ``synonyms``.

    Raises:
      ConfigError: an augmentation of the user's own is not there.
      DataError: the file of synonyms can't be used.
    """
    every = chosen(section, vocabulary)
    flips = bool(section.get("alternating_flip"))
    if not every and not flips:
        return unchanged
    moving = [one for one in every if one.name in AUGMENTATIONS and one.part.move is not None]

    def of(stage: Stage) -> list[Chosen]:
        return [one for one in every if one.part.stage == stage and one not in moving]

    before, after, mixing = [*of("geometry"), *of("raw")], of("features"), of("mix")

    def applied(one: Chosen, key: Array, inputs: Array, strengths: Strengths) -> Array:
        strength, keys = one.values(strengths)
        return one.apply(key, inputs, strength, **keys)

    def augment(
        key: Array, batch: Mapping[str, Array], strengths: Strengths, preprocess: Any
    ) -> dict[str, Array]:
        inputs, targets = batch["inputs"], batch["targets"]
        names = [*(one.name for one in every), "geometry"]
        keys = dict(zip(names, jax.random.split(key, len(names))))
        if inputs.dtype == jnp.uint8 and (moving or before or flips):
            inputs = inputs.astype(jnp.float32) / 255.0
        if flips:
            epochs = epochs_at(batch["step"], batch_size, size, len(inputs))
            inputs = alternating_flip(inputs, fingerprints(inputs), epochs)
        if moving:
            moves = [(one.part.move, one.values(strengths)[0]) for one in moving if one.part.move]
            shared = {key: section[key] for key in ("fill", "interpolation")}
            inputs = warp(keys["geometry"], inputs, moves, **shared)
        for one in before:
            inputs = applied(one, keys[one.name], inputs, strengths)
        inputs = preprocess(inputs)
        for one in after:
            inputs = applied(one, keys[one.name], inputs, strengths)
        if mixing:
            targets = _mixable(targets, num_outputs, classes)
        for one in mixing:
            strength, options = one.values(strengths)
            inputs, targets = one.apply(keys[one.name], inputs, targets, strength, **options)
        return {"inputs": inputs, "targets": targets}

    return augment


def without_mixing(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a resolved ``data.augment`` without what mixes examples."""
    mixing = [name for name, part in AUGMENTATIONS.items() if part.stage == "mix"]
    own = {
        label: given
        for label, given in section["own"].items()
        if find_own(given["name"], f"data.augment.own.{label}.name").stage != "mix"
    }
    return {**section, **dict.fromkeys(mixing), "own": own}


def unchanged(
    key: Array, batch: Mapping[str, Array], strengths: Strengths, preprocess: Any
) -> dict[str, Array]:
    """Preprocesses a batch, and leaves it as it is otherwise."""
    return {"inputs": preprocess(batch["inputs"]), "targets": batch["targets"]}


def epochs_at(step: Array, batch_size: int, size: int, rows: int) -> Int32[Array, " rows"]:
    """Returns the epoch of each row of the batch at a step, as the data order has it.

    Example:
      >>> print(epochs_at(jnp.int32(2), 4, 10, 4))
      [0 0 1 1]
    """
    # step · batch overflows int32 in a long run: the whole rounds of `size` steps come apart
    rounds, rest = step // size, step % size
    positions = rest.astype(jnp.uint32) * batch_size + jnp.arange(rows, dtype=jnp.uint32)
    return rounds * batch_size + (positions // size).astype(jnp.int32)


def _mixable(targets: Array, num_outputs: int, classes: int) -> Array:
    """Targets that can be averaged: distributions over classes, shares of labels, or numbers."""
    if classes and num_outputs > 1 and targets.ndim == 1:
        return jax.nn.one_hot(targets, num_outputs)
    return targets.astype(jnp.float32)
