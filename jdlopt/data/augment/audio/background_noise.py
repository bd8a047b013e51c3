"""Adding white noise to waveforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import SURVEY, Augmentation, Waveforms, unless_zero
from jdlopt.data.augment.draws import normals
from jdlopt.data.augment.sequence.timeline import each


def background_noise(key: Key[Array, ""], waveforms: Waveforms, strength: Scalar) -> Waveforms:
    """Adds white noise at a random signal-to-noise ratio: ``-20 · log₁₀(r)`` dB.

    r, the noise's amplitude relative to the signal's, is uniform in [0, strength].

    Args:
      key: a random key, used once.
      waveforms: a batch of waveforms.
      strength: the largest r: 0.1 means 20 dB and quieter, 1 means noise as loud as the signal; 0
        returns the waveforms.
    """
    noise_key, ratio_key = jax.random.split(key)
    noise = normals(noise_key, waveforms.shape)
    ratios = strength * jax.random.uniform(ratio_key, waveforms.shape[:1])
    return unless_zero(strength, _mixed(waveforms, noise, ratios), waveforms)


def with_noise(waveforms: Waveforms, noise: Waveforms, snr_db: Float[Array, " n"]) -> Waveforms:
    """Adds noise, scaled so that ``10 · log₁₀(signal power / noise power)`` is what is asked.

    Args:
      waveforms: a batch of waveforms; to a silent one, nothing is added.
      noise: a recording for each, as long.
      snr_db: the signal-to-noise ratio of each, in dB.

    Example:
      >>> print(with_noise(jnp.array([[3.0, -3.0]]), jnp.array([[1.0, 1.0]]), jnp.array([20.0])))
      [[ 3.3 -2.7]]
    """
    return _mixed(waveforms, noise, 10.0 ** (-snr_db / 20))


def _mixed(waveforms: Waveforms, noise: Waveforms, ratios: Float[Array, " n"]) -> Waveforms:
    axes = tuple(range(1, waveforms.ndim))
    signal_power = jnp.mean(jnp.square(waveforms), axis=axes)
    noise_power = jnp.mean(jnp.square(noise), axis=axes)
    # noise without power is silence, whatever its factor
    factors = ratios * jnp.sqrt(signal_power / jnp.where(noise_power > 0, noise_power, 1))
    return waveforms + each(factors, waveforms) * noise


BACKGROUND_NOISE = Augmentation(
    name="background_noise",
    apply=background_noise,
    stage="raw",
    strength="largest amplitude of white noise relative to the signal's (0.1: 20 dB)",
    high=1.0,
    first=(0.05,),
    fits=("waveform",),
    source=SURVEY,
    prior=0.4,
)
