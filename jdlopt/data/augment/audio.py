"""Augmentation of audio: of waveforms before their features are computed, of spectrograms after.

Waveforms are [n, samples] or [n, samples, channels], spectrograms [n, frames, mels] or
[n, frames, mels, channels]. What each function draws is drawn for every example anew; `with_noise`,
`at_speed` and `amplified` are the same operations at given parameters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jdlopt.data.augment.color import normals
from jdlopt.data.augment.part import Augmentation
from jdlopt.data.augment.sequence import (
    Strength,
    along_time,
    draw_spans,
    each,
    spans,
    time_shift,
    unless_zero,
    warped,
)

Waveforms = Float[Array, "n samples *channels"]
Spectrograms = Float[Array, "n frames mels *channels"]


def background_noise(key: Key[Array, ""], waveforms: Waveforms, strength: Strength) -> Waveforms:
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


def speed(key: Key[Array, ""], waveforms: Waveforms, strength: Strength) -> Waveforms:
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


def gain(key: Key[Array, ""], waveforms: Waveforms, strength: Strength) -> Waveforms:
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
      >>> print(amplified(jnp.array([[1.0, -2.0]]), jnp.array([20.0])))
      [[ 10. -20.]]
    """
    return waveforms * each(10.0 ** (decibels / 20), waveforms)


def spec_time_mask(
    key: Key[Array, ""], features: Spectrograms, strength: Strength, *, masks: int = 1
) -> Spectrograms:
    """Hides spans of frames, in all mels: they get the mean of their example's spectrogram.

    Widths and starts are uniform over the whole numbers, the widths from 0 to
    ``strength · frames``; spans may overlap.

    Park et al., "SpecAugment: a simple data augmentation method for automatic speech recognition",
    2019, whose mask value 0 is the mean of a normalised spectrogram.

    Args:
      key: a random key, used once.
      features: a batch of log-mel spectrograms or MFCCs.
      strength: the widest span, as a share of the frames.
      masks: spans in each example.
    """
    n, frames = features.shape[:2]
    hidden = spans(*draw_spans(key, (n, masks), frames, strength), frames)
    return _hide(features, along_time(hidden, features))


def spec_frequency_mask(
    key: Key[Array, ""], features: Spectrograms, strength: Strength, *, masks: int = 1
) -> Spectrograms:
    """Hides bands of mels, over all frames: they get the mean of their example's spectrogram.

    Like `spec_time_mask` along the other axis.

    Args:
      key: a random key, used once.
      features: a batch of log-mel spectrograms or MFCCs.
      strength: the widest band, as a share of the mels.
      masks: bands in each example.
    """
    n, _, mels = features.shape[:3]
    hidden = spans(*draw_spans(key, (n, masks), mels, strength), mels)
    return _hide(features, along_time(hidden, features[:, 0])[:, None])


def _hide(features: Spectrograms, hidden: Bool[Array, "n #frames #mels *ones"]) -> Spectrograms:
    means = features.mean(axis=tuple(range(1, features.ndim)), keepdims=True)
    return jnp.where(hidden, means, features)


WAVEFORM = {
    "audio_shift": Augmentation(time_shift, "largest shift, as a share of the length"),
    "speed": Augmentation(speed, "largest relative change of speed", 0.5),
    "background_noise": Augmentation(
        background_noise, "largest amplitude of white noise relative to the signal's (0.1: 20 dB)"
    ),
    "gain": Augmentation(gain, "largest gain or loss, in dB", 30.0),
}
"""Name → augmentation of waveforms."""

SPECTROGRAM = {
    "spec_time_mask": Augmentation(spec_time_mask, "widest span hidden, as a share of the frames"),
    "spec_frequency_mask": Augmentation(
        spec_frequency_mask, "widest band hidden, as a share of the mels"
    ),
}
"""Name → augmentation of the features that preprocessing makes of waveforms."""

AUDIO = {**WAVEFORM, **SPECTROGRAM}
