"""What an augmentation is, which inputs it fits, and the types that its function speaks of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from jdlopt.config import Field, Range, Scalar, fields_of
from jdlopt.data.augment.image.move import Move
from jdlopt.data.preprocess import PreprocessFields
from jdlopt.data.spec import DataSpec, InputSpec

Images = Float[Array, "n h w c"]
Waveforms = Float[Array, "n samples *channels"]
Tokens = Int32[Array, "n tokens"]

PADDING, UNKNOWN = 0, 1
"""What the first two token ids stand for."""
SURVEY = "Shorten and Khoshgoftaar, A survey on image data augmentation, 2019"
SERIES = "Um et al., Data augmentation of wearable sensor data, 2017"

OF_OWN_LENGTH = ("transcription", "seq2seq")
"""Tasks whose targets have positions of their own, not those of the inputs."""

Kind = Literal["image", "byte image", "sequence", "waveform", "spectrogram", "tokens"]
"""What inputs can be: a ``byte image`` has pixels from 0 to 255, a table is a ``sequence``."""
Stage = Literal["geometry", "raw", "features", "mix"]
"""When it is applied: ``geometry`` and then ``raw`` before preprocessing, ``features`` and then
``mix`` after it."""


class Inputs(NamedTuple):
    """What is known of the inputs that are to be augmented.

    Attributes:
      shape: of one raw input.
      dtype: ``uint8``, ``float32``, or ``int32`` for tokens.
      kind: ``image``, ``sequence``, ``table``, ``text`` or ``audio``.
      features: whether preprocessing makes spectrograms of sounds.
      task: ``classification``, ``regression`` ….
      masks: whether targets are masks, which must move with the inputs.
      aligned: whether targets are of the steps of the inputs, one each.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str
    features: bool = False
    task: str = "classification"
    masks: bool = False
    aligned: bool = False

    def kinds(self) -> frozenset[Kind]:
        """Returns what an augmentation may fit of them.

        Example:
          >>> sorted(Inputs((28, 28, 1), "uint8", "image").kinds())
          ['byte image', 'image']
        """
        if np.dtype(self.dtype) == np.int32:
            return frozenset({"tokens"})
        if np.dtype(self.dtype) == np.bool_:  # which inputs there are: nothing fits that
            return frozenset()
        if len(self.shape) == 3:
            return frozenset({"image", "byte image"} if self.dtype == "uint8" else {"image"})
        if self.kind != "audio":
            return frozenset({"sequence"})
        if self.features:
            return frozenset({"sequence", "waveform", "spectrogram"})
        return frozenset({"sequence", "waveform"})


@dataclass(frozen=True)
class Augmentation:
    """One augmentation: what it does, and what is known of it before it is tried.

    Attributes:
      name: of its key in ``data.augment``, whose value is the strength.
      apply: ``(key, inputs, strength) → inputs``, pure, the strength traced; strength 0 returns the
        inputs to the bit. Of the stage ``mix`` it is ``(key, inputs, targets, strength) → (inputs,
        targets)``. Its keyword-only parameters are keys of ``data.augment`` as well.
      stage: when it is applied.
      strength: what the strength means, and its unit, in one line.
      high: the largest strength that makes sense, or None.
      first: the strengths that are tried first.
      fits: what it fits: any of these.
      source: where it comes from.
      prior: how often it is expected to help, from 0 to 1.
      move: of the stage ``geometry``: the random map that is composed with the others'.
      prepare: ``(vocabulary, *, keys) → apply``, where ``apply`` needs what a file holds; its
        keyword-only parameters are then the keys.
      requires: keys that must be set with it.
      alike: of the stage ``mix``: of one key its targets are the same whatever the inputs are, so
        that it can mix several inputs of an example.
      hindrance: says of inputs that it fits why it can't help there, or returns None; it is then
        not in the catalogue of techniques for them.
      stays: whether it leaves every pixel in its place, but for its ``move``, which masks follow.
    """

    name: str
    apply: Callable[..., Any]
    stage: Stage = "features"
    strength: str = "its strength"
    high: float | None = None
    first: tuple[float, ...] = ()
    fits: tuple[Kind, ...] = ("image", "sequence", "waveform", "tokens")
    source: str = ""
    prior: float = 0.2
    move: Move | None = None
    prepare: Callable[..., Callable[..., object]] | None = None
    requires: tuple[str, ...] = ()
    alike: bool = False
    hindrance: Callable[[Inputs], str | None] | None = None
    stays: bool = True

    def fields(self) -> dict[str, Field]:
        """Returns its config keys beside the strength, from its keyword-only parameters."""
        return fields_of(self.prepare or self.apply)

    def strength_field(self) -> Field:
        """Returns what its strength may be; None leaves it out of the program."""
        return Field((float, type(None)), None, Range(0.0, self.high))

    def misfit(self, inputs: Inputs) -> str | None:
        """Says why it can't be used on inputs, or returns None."""
        kinds = inputs.kinds()
        if inputs.masks and (self.stage == "mix" or not self.stays):
            return "moves or mixes pixels, and can't do so with their masks"
        if inputs.aligned and not self.stays:
            return "moves steps, and leaves the targets of these where they are"
        if kinds.intersection(self.fits):
            return None
        if "image" in kinds and "byte image" in self.fits:
            return "needs pixels from 0 to 255 (uint8)"
        return "does not fit"


def inputs_of(spec: DataSpec, fields: PreprocessFields, one: InputSpec | None = None) -> Inputs:
    """Returns what augmentations must know of a dataset.

    Args:
      spec: what is known of it.
      fields: the resolved ``data.preprocess``.
      one: which input is meant; None: the only one.
    """
    one = spec.input if one is None else one
    if one.text is not None:
        kind = "text"
    elif one.sample_rate is not None:
        kind = "audio"
    elif one.feature_names is not None or len(one.shape) == 1:
        kind = "table"
    else:
        kind = "image" if len(one.shape) == 3 else "sequence"
    features = fields.audio != "none"
    masks = spec.positions == 2
    aligned = spec.positions == 1 and spec.task not in OF_OWN_LENGTH
    return Inputs(one.shape, one.dtype, kind, features, spec.task, masks, aligned)


def unmixable(part: Augmentation, every: Sequence[Inputs]) -> bool:
    """Says whether an augmentation mixes examples, and can't mix several inputs of them alike.

    Pairs are never mixed: what belongs together is no share of anything.
    """
    if part.stage != "mix" or len(every) == 1:
        return False
    if every[0].task == "pairs":
        return True
    return not part.alike or any(part.misfit(one) is not None for one in every)


def unless_zero(strength: Scalar, changed: Array, inputs: Array) -> Array:
    """Returns what was changed, in the inputs' dtype, or at strength 0 the inputs to the bit."""
    chex.assert_rank(strength, 0, custom_message="a batch has one strength; for several, jax.vmap")
    chex.assert_equal_shape([changed, inputs], custom_message="an augmentation keeps shapes")
    return jnp.where(jnp.asarray(strength) == 0, inputs, changed.astype(inputs.dtype))
