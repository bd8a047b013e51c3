"""SpecAugment: spans of frames, or bands of mels, are hidden."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jdlopt.config import Count, Scalar
from jdlopt.data.augment.augmentation import Augmentation
from jdlopt.data.augment.sequence.timeline import along_time, draw_spans, spans
from jdlopt.data.frames import real_frames

Spectrograms = Float[Array, "n frames mels *channels"]


def spec_time_mask(
    key: Key[Array, ""], features: Spectrograms, strength: Scalar, *, spec_masks: Count = 1
) -> Spectrograms:
    """Hides spans of frames, in all mels: they get the mean of their example's spectrogram.

    Frames of padding (`jdlopt.data.frames.real_frames`) and the last of all stay as they are: so
    padding is known for it, and a hidden end is not taken for padding.

    Widths and starts are uniform over the whole numbers, the widths from 0 to
    ``strength · frames``; spans may overlap.

    Park et al., "SpecAugment: a simple data augmentation method for automatic speech recognition",
    2019, whose mask value 0 is the mean of a normalised spectrogram.

    Args:
      key: a random key, used once.
      features: a batch of log-mel spectrograms or MFCCs.
      strength: the widest span, as a share of the frames.
      spec_masks: how many spans each of the two ``spec_`` masks hides.
    """
    n, frames = features.shape[:2]
    hidden = spans(*draw_spans(key, (n, spec_masks), frames, strength), frames)
    hidden &= real_frames(features.reshape(n, frames, -1)) & (jnp.arange(frames) < frames - 1)
    return _hide(features, along_time(hidden, features))


def spec_frequency_mask(
    key: Key[Array, ""], features: Spectrograms, strength: Scalar, *, spec_masks: Count = 1
) -> Spectrograms:
    """Hides bands of mels, over all frames: they get the mean of their example's spectrogram.

    Like `spec_time_mask` along the other axis.

    Args:
      key: a random key, used once.
      features: a batch of log-mel spectrograms or MFCCs.
      strength: the widest band, as a share of the mels.
      spec_masks: how many spans each of the two ``spec_`` masks hides.
    """
    n, _, mels = features.shape[:3]
    hidden = spans(*draw_spans(key, (n, spec_masks), mels, strength), mels)
    return _hide(features, along_time(hidden, features[:, 0])[:, None])


def _hide(features: Spectrograms, hidden: Bool[Array, "n #frames #mels *ones"]) -> Spectrograms:
    means = features.mean(axis=tuple(range(1, features.ndim)), keepdims=True)
    return jnp.where(hidden, means, features)


SPECAUGMENT = "Park et al., SpecAugment, 2019"


SPEC_TIME_MASK = Augmentation(
    name="spec_time_mask",
    apply=spec_time_mask,
    stage="features",
    strength="widest span hidden, as a share of the frames",
    high=1.0,
    first=(0.15,),
    fits=("spectrogram",),
    source=SPECAUGMENT,
    prior=0.5,
)
SPEC_FREQUENCY_MASK = Augmentation(
    name="spec_frequency_mask",
    apply=spec_frequency_mask,
    stage="features",
    strength="widest band hidden, as a share of the mels",
    high=1.0,
    first=(0.15,),
    fits=("spectrogram",),
    source=SPECAUGMENT,
    prior=0.5,
)
