"""Playing waveforms faster or slower."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import Augmentation, Waveforms, unless_zero
from jdlopt.data.augment.sequence.timeline import along_time, warped


def speed(key: Key[Array, ""], waveforms: Waveforms, strength: Scalar) -> Waveforms:
    """Plays each waveform faster or slower, its pitch with it, by a factor in ``1 ± strength``.

    The factor is uniform. The length stays: what runs over is cut, what is missing is 0.

    Ko, Peddinti, Povey and Khudanpur, "Audio augmentation for speech recognition", 2015.

    Args:
      key: a random key, used once.
      waveforms: a batch of waveforms.
      strength: the largest relative change of speed, below 1; 0 returns the waveforms.
    """
    draws = jax.random.uniform(key, waveforms.shape[:1], minval=-1.0, maxval=1.0)
    return unless_zero(strength, at_speed(waveforms, strength * draws), waveforms)


def at_speed(waveforms: Waveforms, changes: Float[Array, " n"]) -> Waveforms:
    """Returns each waveform played faster or slower: ``y[t] = x(t · (1 + change))``.

    Values between samples are interpolated linearly; after the waveform's end come zeros.

    Args:
      waveforms: a batch of waveforms.
      changes: the relative change of speed of each, above -1.

    Example:
      >>> print(at_speed(jnp.array([[0.0, 10.0, 20.0, 30.0]]), jnp.array([0.5])))
      [[ 0. 15. 30.  0.]]
    """
    length = waveforms.shape[1]
    moved = jnp.arange(length) * changes[:, None]
    heard = jnp.arange(length) + jnp.ceil(moved) < length
    return jnp.where(along_time(heard, waveforms), warped(waveforms, moved), 0)


SPEED = Augmentation(
    name="speed",
    apply=speed,
    stage="raw",
    strength="largest relative change of speed",
    high=0.5,
    first=(0.1,),
    fits=("waveform",),
    source="Ko et al., Audio augmentation for speech recognition, 2015",
    prior=0.4,
    stays=False,
)
