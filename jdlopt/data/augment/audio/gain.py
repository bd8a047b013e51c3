"""Making waveforms louder or softer."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Waveforms, unless_zero
from jdlopt.data.augment.sequence.timeline import each


def gain(key: Key[Array, ""], waveforms: Waveforms, strength: Scalar) -> Waveforms:
    """Makes each waveform louder or softer: ``x · 10^(g / 20)``, g uniform in ``± strength`` dB.

    Args:
      key: a random key, used once.
      waveforms: a batch of waveforms.
      strength: the largest gain, in dB; 0 returns the waveforms.
    """
    draws = jax.random.uniform(key, waveforms.shape[:1], minval=-1.0, maxval=1.0)
    return unless_zero(strength, amplified(waveforms, strength * draws), waveforms)


def amplified(waveforms: Waveforms, decibels: Float[Array, " n"]) -> Waveforms:
    """Returns each waveform amplified by so many decibels: ``x · 10^(decibels / 20)``.

    Args:
      waveforms: a batch of waveforms.
      decibels: the gain of each.

    Example:
      >>> import jax.numpy as jnp
      >>> print(amplified(jnp.array([[1.0, -2.0]]), jnp.array([20.0])))
      [[ 10. -20.]]
    """
    return waveforms * each(10.0 ** (decibels / 20), waveforms)


GAIN = Augmentation(
    name="gain",
    apply=gain,
    stage="raw",
    strength="largest gain or loss, in dB",
    high=30.0,
    first=(6.0,),
    fits=("waveform",),
    source=SURVEY,
    prior=0.2,
)
