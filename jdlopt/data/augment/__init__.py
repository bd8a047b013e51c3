"""Augmentation: pure functions of a random key, a batch and traced strengths, in a fixed order.

What changes pixels, waveforms or tokens comes before preprocessing, in the order of the tables;
what changes features, and what mixes examples, comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from jdlopt import config as configs
from jdlopt.config import Choice, Count, Field, NonNegative, Range
from jdlopt.data.augment import audio, color, erase, geometry, mix, policy, sequence, text
from jdlopt.data.augment.part import Augmentation
from jdlopt.errors import ConfigError, listing

__all__ = ["AUGMENTATIONS", "AugmentFields", "Augmentation", "fitting", "make_augment", "schema"]

IMAGE = {**geometry.GEOMETRY, **color.COLOR, **policy.POLICY, **erase.ERASE}
BEFORE = {**IMAGE, **audio.WAVEFORM, **text.TEXT}
"""What comes before preprocessing; ``alternating_flip`` does, too."""
AFTER = {**audio.SPECTROGRAM, **sequence.SEQUENCE}

AUGMENTATIONS: dict[str, Augmentation] = {**BEFORE, **AFTER, **mix.MIX}
"""Every augmentation by the name of its key in ``data.augment``, in the order of their use."""

NEEDS_BYTES = frozenset({*color.COLOR, *policy.POLICY})
"""Augmentations of colour: they need pixels whose range is known, uint8."""


@dataclass(frozen=True)
class AugmentFields:
    """The keys of ``data.augment`` beside the strengths.

    Attributes:
      fill: what geometric augmentations put where an image has no pixel: ``constant`` (0),
        ``reflect`` or ``edge``.
      interpolation: how pixels between pixels are read, ``bilinear`` or ``nearest``.
      alternating_flip: flip each image every other epoch, starting with a random half of them.
      operations: how many operations ``rand_augment`` applies to an image.
      spec_masks: how many spans each of the two ``spec_`` masks hides.
      synonyms_file: the file of ``synonyms``: on each line a word, a tab, and its synonyms.
      own: a function of yours, ``package.module:name``, called as ``(key, inputs, strength)`` on
        preprocessed inputs.
      own_strength: its strength.
    """

    fill: Annotated[str, Choice(geometry.FILLS)] = "constant"
    interpolation: Annotated[str, Choice(geometry.INTERPOLATIONS)] = "bilinear"
    alternating_flip: bool = False
    operations: Count = 2
    spec_masks: Count = 1
    synonyms_file: str | None = None
    own: str | None = None
    own_strength: NonNegative | None = None


def schema() -> configs.Schema:
    """Returns every key of ``data.augment``: a strength or None each, and `AugmentFields`."""
    strengths = {
        name: Field((float, type(None)), None, Range(0.0, part.high))
        for name, part in AUGMENTATIONS.items()
    }
    return {**strengths, **configs.fields_of(AugmentFields)}


def fitting(
    input_shape: tuple[int, ...],
    input_dtype: str,
    *,
    is_sound: bool = False,
    features: str = "none",
) -> dict[str, Augmentation]:
    """Returns the augmentations that make sense for a kind of input.

    Args:
      input_shape: the shape of one raw input.
      input_dtype: ``uint8``, ``float32``, or ``int32`` for tokens.
      is_sound: whether inputs are waveforms.
      features: ``data.preprocess.audio``; spectrogram masks need features.

    Example:
      >>> list(fitting((30,), "float32"))[:3]
      ['jitter', 'scaling', 'time_shift']
    """
    if np.dtype(input_dtype) == np.int32:
        return dict(text.TEXT)
    if len(input_shape) == 3:
        some = IMAGE if input_dtype == "uint8" else {
            name: part for name, part in IMAGE.items() if name not in NEEDS_BYTES
        }  # fmt: skip
        return {**some, **mix.MIX}
    if is_sound:
        spectrograms = audio.SPECTROGRAM if features != "none" else {}
        return {**audio.WAVEFORM, **spectrograms, **sequence.SEQUENCE, **mix.MIX}
    return {**sequence.SEQUENCE, **mix.MIX}


def problems(section: Mapping[str, Any], dataset: Any, preprocess: Mapping[str, Any]) -> list[str]:
    """Says in words which augmentations of a section can't be used on a dataset."""
    possible = fitting(
        dataset.input_shape,
        dataset.input_dtype,
        is_sound=dataset.sample_rate is not None,
        features=preprocess.get("audio", "none"),
    )
    shape = f"{dataset.input_dtype} inputs of shape {dataset.input_shape} of {dataset.name!r}"
    found = []
    for name in AUGMENTATIONS:
        if section.get(name) is not None and name not in possible:
            bytes_only = name in NEEDS_BYTES and len(dataset.input_shape) == 3
            why = "needs pixels from 0 to 255 (uint8)" if bytes_only else "does not fit"
            found.append(
                f"data.augment.{name}: {why}: {shape}. Those that fit: {listing(possible)}."
            )
    if section.get("alternating_flip") and len(dataset.input_shape) != 3:
        found.append(f"data.augment.alternating_flip: is for images, not for {shape}.")
    if section.get("synonyms") is not None and section.get("synonyms_file") is None:
        found.append("data.augment.synonyms: needs data.augment.synonyms_file.")
    if (section.get("own") is None) != (section.get("own_strength") is None):
        found.append("data.augment: own and own_strength go together; give both or neither.")
    return found


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

    The batch that it takes has ``inputs`` and ``targets``, and ``step`` where `AugmentFields`'
    ``alternating_flip`` is on. Where examples are mixed, targets come back as distributions.

    Args:
      section: the resolved ``data.augment``; its strengths only say what is in the program.
      size: training examples.
      batch_size: of the global batch.
      num_outputs: of the model.
      classes: of the dataset; 0 for a regression.
      vocabulary: token → id, for ``synonyms``.

    Raises:
      ConfigError: ``own`` is no function; the file of synonyms can't be used.
    """
    names = [name for name in AUGMENTATIONS if section.get(name) is not None]
    geometric = [name for name in names if name in geometry.GEOMETRY]
    before = [name for name in names if name in BEFORE and name not in geometric]
    after = [name for name in names if name in AFTER]
    mixing = [name for name in names if name in mix.MIX]
    flips = bool(section.get("alternating_flip"))
    own = section.get("own")
    own = None if own is None else configs.find_part(own, {}, "data.augment.own")
    options = _options(section, names, vocabulary)
    if not names and not flips and own is None:
        return unchanged

    def augment(
        key: Array, batch: Mapping[str, Array], strengths: Mapping[str, Array], preprocess: Any
    ) -> dict[str, Array]:
        inputs, targets = batch["inputs"], batch["targets"]
        keys = dict(zip([*names, "geometry", "own"], jax.random.split(key, len(names) + 2)))
        if inputs.dtype == jnp.uint8 and (geometric or before or flips):
            inputs = inputs.astype(jnp.float32) / 255.0
        if flips:
            epochs = epochs_at(batch["step"], batch_size, size, len(inputs))
            inputs = geometry.alternating_flip(inputs, geometry.fingerprints(inputs), epochs)
        if geometric:
            inputs = geometry.warp(
                keys["geometry"],
                inputs,
                {name: strengths[name] for name in geometric},
                fill=section["fill"],
                interpolation=section["interpolation"],
            )
        for name in before:
            inputs = options[name](keys[name], inputs, strengths[name])
        inputs = preprocess(inputs)
        for name in after:
            inputs = options[name](keys[name], inputs, strengths[name])
        if own is not None:
            inputs = own(keys["own"], inputs, strengths["own_strength"])
        if mixing:
            targets = _mixable(targets, num_outputs, classes)
        for name in mixing:
            inputs, targets = options[name](keys[name], inputs, targets, strengths[name])
        return {"inputs": inputs, "targets": targets}

    return augment


def unchanged(
    key: Array, batch: Mapping[str, Array], strengths: Any, preprocess: Any
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


def _options(
    section: Mapping[str, Any], names: list[str], vocabulary: Mapping[str, int] | None
) -> dict[str, Callable[..., Any]]:
    """The functions of the chosen augmentations, what is static about them filled in."""
    found: dict[str, Callable[..., Any]] = {name: AUGMENTATIONS[name].apply for name in names}
    if "rand_augment" in found:
        found["rand_augment"] = partial(policy.rand_augment, operations=section["operations"])
    for name in audio.SPECTROGRAM:
        if name in found:
            found[name] = partial(found[name], masks=section["spec_masks"])
    if "synonyms" in found:
        if vocabulary is None:
            raise ConfigError("data.augment.synonyms: the inputs have no vocabulary of words.")
        table = jnp.asarray(text.read_synonyms(section["synonyms_file"], vocabulary))
        found["synonyms"] = partial(text.synonyms, table=table)
    return found


def _mixable(targets: Array, num_outputs: int, classes: int) -> Array:
    """Targets that can be averaged: distributions over classes, or numbers."""
    if classes and num_outputs > 1:
        return jax.nn.one_hot(targets, num_outputs)
    return targets.astype(jnp.float32)
