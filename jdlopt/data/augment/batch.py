"""What a training step does to its batch: preprocessing, and the augmentations of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, PyTree

from jdlopt.data.augment import AUGMENTATIONS, find_own
from jdlopt.data.augment.augmentation import Augmentation, Stage
from jdlopt.data.augment.image.flip import alternating_flip, fingerprints
from jdlopt.data.augment.image.masks import flip_masks, warp_masks
from jdlopt.data.augment.image.move import Move
from jdlopt.data.augment.image.warp import warp
from jdlopt.data.named import INPUT, by_name

Strengths = Mapping[str, Any]
"""The floats of ``data.augment``, as in ``TrainState.hparams``."""


class Part(NamedTuple):
    """What of ``data.augment`` is for one of several inputs.

    Attributes:
      section: the resolved section, without what does not fit the input.
      vocabulary: token → id, of a text.
    """

    section: Mapping[str, Any]
    vocabulary: Mapping[str, int] | None = None


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
    section: Mapping[str, object],
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
    parts: Mapping[str, Part] | None = None,
    masks: bool = False,
) -> Callable[..., dict[str, Any]]:
    """Returns ``(key, batch, strengths, preprocess) → batch``, preprocessing included. Pure.

    The batch that it takes has ``inputs`` and ``targets``, and ``step`` where ``alternating_flip``
    is on. Where examples are mixed, targets come back as distributions; masks move as their images
    do.

    Args:
      section: the resolved ``data.augment``; its strengths only say what is in the program.
      size: training examples.
      batch_size: of the global batch.
      num_outputs: of the model.
      classes: of the dataset; 0 for a regression.
      vocabulary: token → id, for ``synonyms``.
      parts: of named inputs, what is for each; what mixes examples mixes all inputs alike.
      masks: whether targets are masks of the only input, [n, height, width].

    Raises:
      ConfigError: an augmentation of the user's own is not there.
      DataError: the file of synonyms can't be used.
    """
    stages = {
        name: _stages(part.section, part.vocabulary)
        for name, part in (parts or {INPUT: Part(section, vocabulary)}).items()
    }
    first = next(iter(stages.values()))
    mixing = [one for one in first.every if one.part.stage == "mix"]
    if not any(one.every or one.flips for one in stages.values()):
        return unchanged

    def augment(
        key: Array, batch: Mapping[str, Any], strengths: Strengths, preprocess: Any
    ) -> dict[str, Any]:
        inputs, targets = by_name(batch["inputs"]), batch["targets"]
        # the only input's keys are the batch's own
        own = {
            name: key if parts is None else jax.random.fold_in(key, place)
            for place, name in enumerate(stages)
        }
        keys = {name: one.keys(own[name]) for name, one in stages.items()}
        epochs = None
        if any(one.flips for one in stages.values()):
            epochs = epochs_at(batch["step"], batch_size, size, len(targets))
        if masks:
            targets = first.moved(keys[INPUT], inputs[INPUT], targets, strengths, epochs)
        inputs = {
            name: one.before(keys[name], inputs[name], strengths, epochs)
            for name, one in stages.items()
        }
        inputs = by_name(preprocess(inputs[INPUT] if parts is None else inputs))
        inputs = {
            name: one.after(keys[name], inputs[name], strengths) for name, one in stages.items()
        }
        if mixing:
            targets = _mixable(targets, num_outputs, classes)
        for one in mixing:
            strength, options = one.values(strengths)
            mix, drawn = partial(one.apply, **options), next(iter(keys.values()))[one.name]
            made = {name: mix(drawn, values, targets, strength) for name, values in inputs.items()}
            # one key gives every input the same shares, and so the same targets
            inputs = {name: values for name, (values, _) in made.items()}
            targets = next(iter(made.values()))[1]
        return {"inputs": inputs[INPUT] if parts is None else inputs, "targets": targets}

    return augment


class _Stages(NamedTuple):
    """What a section does to one input, by when it is done."""

    section: Mapping[str, Any]
    every: list[Chosen]
    moving: list[Chosen]
    first: list[Chosen]
    last: list[Chosen]
    flips: bool

    def keys(self, key: Array) -> dict[str, Array]:
        """Returns a random key for each augmentation."""
        names = [*(one.name for one in self.every), "geometry"]
        return dict(zip(names, jax.random.split(key, len(names))))

    def before(
        self, keys: Mapping[str, Array], inputs: Array, strengths: Strengths, epochs: Array | None
    ) -> Array:
        """Returns what preprocessing is given."""
        if self.moving or self.first or self.flips:
            inputs = _unit(inputs)
        if epochs is not None and self.flips:
            inputs = alternating_flip(inputs, fingerprints(inputs), epochs)
        if self.moving:
            shared = {key: self.section[key] for key in ("fill", "interpolation")}
            inputs = warp(keys["geometry"], inputs, self.moves(strengths), **shared)
        for one in self.first:
            inputs = _applied(one, keys[one.name], inputs, strengths)
        return inputs

    def moves(self, strengths: Strengths) -> list[tuple[Move, Any]]:
        """Returns what moves images, each with its strength."""
        return [(one.part.move, one.values(strengths)[0]) for one in self.moving if one.part.move]

    def moved(
        self,
        keys: Mapping[str, Array],
        inputs: Array,
        masks: Array,
        strengths: Strengths,
        epochs: Array | None,
    ) -> Array:
        """Returns masks, moved as `before` moves the raw images that they are of."""
        if epochs is not None and self.flips:
            masks = flip_masks(masks, fingerprints(_unit(inputs)), epochs)
        if self.moving:
            moves, fill = self.moves(strengths), str(self.section["fill"])
            masks = warp_masks(keys["geometry"], masks, moves, fill=fill)
        return masks

    def after(self, keys: Mapping[str, Array], inputs: Array, strengths: Strengths) -> Array:
        """Returns preprocessed inputs, changed."""
        for one in self.last:
            inputs = _applied(one, keys[one.name], inputs, strengths)
        return inputs


def _unit(inputs: Array) -> Array:
    """Bytes as numbers from 0 to 1; others as they are."""
    return inputs.astype(jnp.float32) / 255.0 if inputs.dtype == jnp.uint8 else inputs


def _stages(section: Mapping[str, object], vocabulary: Mapping[str, int] | None) -> _Stages:
    every = chosen(section, vocabulary)
    moving = [one for one in every if one.name in AUGMENTATIONS and one.part.move is not None]

    def of(stage: Stage) -> list[Chosen]:
        return [one for one in every if one.part.stage == stage and one not in moving]

    first, last = [*of("geometry"), *of("raw")], of("features")
    return _Stages(section, every, moving, first, last, bool(section.get("alternating_flip")))


def _applied(one: Chosen, key: Array, inputs: Array, strengths: Strengths) -> Array:
    strength, keys = one.values(strengths)
    return one.apply(key, inputs, strength, **keys)


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
    key: Array, batch: Mapping[str, PyTree[Array]], strengths: Strengths, preprocess: Any
) -> dict[str, PyTree[Array]]:
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
