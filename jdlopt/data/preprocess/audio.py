"""Features of audio on the device: log-mel spectrograms and MFCCs with librosa's conventions.

All of them are pure functions of waveforms [..., samples], whose shapes and settings are static.
The conventions are those of librosa 0.11's defaults: frames are centred on multiples of ``hop``
(zeros pad both ends), the window is a periodic Hann window of ``n_fft`` samples, the spectrum is a
power spectrum, and the mel scale and its filters' areas are Slaney's (``htk=False``,
``norm="slaney"``). Time comes before frequency: [..., frames, mels], librosa's transposed.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

from jdlopt.errors import ConfigError

Waveforms = Float[Array | np.ndarray, "*batch samples"]
Features = Float[Array | np.ndarray, "*batch frames features"]

FLOOR = 1e-10
"""The least power that counts, -100 dB, so that silence has a logarithm."""
MOST_MATRIX_VALUES = 1 << 23
"""A resampling filter larger than this (32 MiB) is refused: its rates have no common divisor."""


def mono(waveforms: Float[Array | np.ndarray, "*batch samples channels"]) -> Waveforms:
    """Returns the mean of all channels.

    Example:
      >>> print(mono(jnp.array([[[1.0, 3.0], [0.0, 2.0]]])))
      [[2. 1.]]
    """
    return waveforms.mean(axis=-1)


# --- sample rates ---------------------------------------------------------------------------------


def resample_host(
    waveforms: Float[np.ndarray, "*batch samples"], from_rate: int, to_rate: int
) -> Float[np.ndarray, "*batch resampled"]:
    """Changes the sample rate with `scipy.signal.resample_poly`, on the host.

    Args:
      waveforms: one waveform or several.
      from_rate: their samples per second.
      to_rate: the samples per second wanted.

    Returns:
      ``ceil(samples · to_rate / from_rate)`` samples each.
    """
    from scipy.signal import resample_poly

    up, down = _reduced(from_rate, to_rate)
    return resample_poly(waveforms, up, down, axis=-1).astype(waveforms.dtype)


def resample(
    waveforms: Waveforms, from_rate: int, to_rate: int
) -> Float[Array | np.ndarray, "*batch resampled"]:
    """Changes the sample rate: what `resample_host` computes, on the device.

    Upsampling by ``up``, a low-pass filter and downsampling by ``down`` are one linear map of a few
    hundred samples, the same all along the waveform: frames of it times one matrix.

    Args:
      waveforms: a batch of waveforms.
      from_rate: their samples per second.
      to_rate: the samples per second wanted.

    Raises:
      ConfigError: the rates have so little in common that the matrix would be huge.
    """
    up, down = _reduced(from_rate, to_rate)
    if up == down:
        return waveforms
    samples = waveforms.shape[-1]
    wanted = -(-samples * up // down)
    matrix, before, hop = _resampling_matrix(up, down)
    length, made = matrix.shape
    blocks = -(-wanted // made)
    needed = (blocks - 1) * hop + length
    padded = _padded(waveforms, before, max(0, needed - before - samples))
    resampled = _matmul(_framed(padded, length, hop, blocks), matrix)
    return resampled.reshape(*waveforms.shape[:-1], blocks * made)[..., :wanted]


def _reduced(from_rate: int, to_rate: int) -> tuple[int, int]:
    if min(from_rate, to_rate) < 1:
        raise ConfigError(
            f"sample rates: expected samples per second, at least 1; found {from_rate} to {to_rate}"
        )
    common = math.gcd(from_rate, to_rate)
    return to_rate // common, from_rate // common


def _resampling_matrix(up: int, down: int) -> tuple[Float32[np.ndarray, "length made"], int, int]:
    """Returns the map from a frame of samples to a block of resampled ones.

    With it, how many samples before the block's first position the frame starts, and how many lie
    between one frame and the next.
    """
    from scipy.signal import firwin

    half = 10 * max(up, down)  # the length and window that scipy's resample_poly takes
    # so many blocks together that a frame is not much longer than what it moves on by
    together = max(1, round(2 * half / (up * down)))
    made, hop = together * up, together * down
    before = half // up
    length = before + ((made - 1) * down + half) // up + 1
    if length * made > MOST_MATRIX_VALUES:
        raise ConfigError(
            f"resampling by {up}/{down} would take a filter of {length} x {made} values. Choose "
            "rates with a larger common divisor, or resample the files beforehand "
            "(jdlopt.data.preprocess.audio.resample_host)."
        )
    taps = up * firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))
    tap = half + np.arange(made) * down - (np.arange(length)[:, None] - before) * up
    inside = (tap >= 0) & (tap <= 2 * half)
    matrix = np.where(inside, taps[np.clip(tap, 0, 2 * half)], 0.0)
    return matrix.astype(np.float32), before, hop


# --- spectra --------------------------------------------------------------------------------------


def power_spectrogram(
    waveforms: Waveforms, *, n_fft: int, hop: int
) -> Float[Array, "*batch frames frequencies"]:
    """Returns the power at ``n_fft // 2 + 1`` frequencies around each multiple of ``hop``.

    The square of the short-time Fourier transform's magnitude, as ``abs(librosa.stft(…)) ** 2``.

    Args:
      waveforms: a batch of waveforms.
      n_fft: samples in a frame.
      hop: samples between the centres of two frames.
    """
    half = n_fft // 2
    samples = waveforms.shape[-1]
    count = 1 + max(0, samples + 2 * half - n_fft) // hop
    needed = (count - 1) * hop + n_fft
    padded = _padded(waveforms, half, max(0, needed - half - samples))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = _framed(padded, n_fft, hop, count)
    spectrum = jnp.fft.rfft(frames * jnp.asarray(window, waveforms.dtype))
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def mel_filters(
    sample_rate: int,
    n_fft: int,
    num_mels: int,
    *,
    lowest: float = 0.0,
    highest: float | None = None,
) -> Float32[np.ndarray, "mels frequencies"]:
    """Returns the weights of each frequency in each mel band: triangles, each of area 1 in Hz.

    Slaney, "Auditory Toolbox", 1998: the mel scale is linear up to 1 kHz and logarithmic above.
    Equal to ``librosa.filters.mel``.

    Args:
      sample_rate: samples per second.
      n_fft: samples in a frame.
      num_mels: bands.
      lowest: where the first band starts, in Hz.
      highest: where the last band ends, in Hz; None: half the sample rate.

    Raises:
      ConfigError: a band holds no frequency, or there is nothing between lowest and highest.
    """
    highest = sample_rate / 2 if highest is None else highest
    if not 0 <= lowest < highest <= sample_rate / 2:
        raise ConfigError(
            f"mel bands: expected 0 <= lowest < highest <= {sample_rate / 2:g} Hz (half the sample "
            f"rate); found lowest {lowest:g} and highest {highest:g}."
        )
    edges = _hertz(np.linspace(_mels(lowest), _mels(highest), num_mels + 2))
    left, centre, right = (edges[i : num_mels + i, None] for i in range(3))
    frequencies = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (right - left))
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if len(empty):
        band = edges[empty[0]], edges[empty[0] + 2]
        raise ConfigError(
            f"num_mels={num_mels} with n_fft={n_fft} at {sample_rate} Hz: {len(empty)} of the mel "
            f"bands hold no frequency (band {empty[0]}, {band[0]:.0f} to {band[1]:.0f} Hz, where "
            f"frequencies lie {sample_rate / n_fft:.1f} Hz apart). Use fewer bands or a larger "
            "n_fft."
        )
    return filters.astype(np.float32)


_HERTZ_PER_MEL = 200 / 3
_BREAK_HERTZ, _BREAK_MELS = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27


def _mels(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return hertz / _HERTZ_PER_MEL
    return _BREAK_MELS + math.log(hertz / _BREAK_HERTZ) / _LOG_STEP


def _hertz(mels: np.ndarray) -> np.ndarray:
    above = _BREAK_HERTZ * np.exp(_LOG_STEP * (mels - _BREAK_MELS))
    return np.where(mels < _BREAK_MELS, mels * _HERTZ_PER_MEL, above)


def decibels(
    power: Features, *, top: float | None = 80.0
) -> Float[Array, "*batch frames features"]:
    """Returns ``10 · log₁₀(power)``, cut off below an utterance's loudest value less ``top``.

    Equal to ``librosa.power_to_db`` of each utterance.

    Args:
      power: powers; what is below 1e-10 counts as that.
      top: the range that is kept, in dB; None keeps all.
    """
    values = (10 / math.log(10)) * jnp.log(jnp.maximum(power, FLOOR))
    if top is None:
        return values
    return jnp.maximum(values, values.max(axis=(-2, -1), keepdims=True) - top)


def log_mel(
    waveforms: Waveforms,
    *,
    sample_rate: int,
    n_fft: int,
    hop: int,
    num_mels: int,
    lowest: float = 0.0,
    highest: float | None = None,
    top: float | None = 80.0,
) -> Float[Array, "*batch frames mels"]:
    """Returns the log-mel spectrogram, in dB.

    ``librosa.power_to_db(librosa.feature.melspectrogram(…))``, time before mels.

    Args:
      waveforms: a batch of waveforms, of one channel.
      sample_rate: samples per second.
      n_fft: samples in a frame.
      hop: samples between the centres of two frames.
      num_mels: mel bands.
      lowest: where the first band starts, in Hz.
      highest: where the last band ends, in Hz; None: half the sample rate.
      top: the range below an utterance's loudest value that is kept, in dB; None keeps all.

    Returns:
      ``1 + samples // hop`` frames of each waveform, for an even ``n_fft``.

    Raises:
      ConfigError: a mel band holds no frequency.

    Example:
      >>> silence = jnp.zeros((2, 8000))
      >>> log_mel(silence, sample_rate=8000, n_fft=512, hop=128, num_mels=40).shape
      (2, 63, 40)
    """
    filters = mel_filters(sample_rate, n_fft, num_mels, lowest=lowest, highest=highest)
    power = power_spectrogram(waveforms, n_fft=n_fft, hop=hop)
    return decibels(_matmul(power, filters.T), top=top)


def mfcc(
    waveforms: Waveforms,
    *,
    sample_rate: int,
    n_fft: int,
    hop: int,
    num_mels: int,
    num_coefficients: int = 20,
    lowest: float = 0.0,
    highest: float | None = None,
    top: float | None = 80.0,
) -> Float[Array, "*batch frames coefficients"]:
    """Returns mel-frequency cepstral coefficients: the log-mel spectrogram's orthonormal DCT-II.

    Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word
    recognition in continuously spoken sentences", 1980. Equal to ``librosa.feature.mfcc``.

    Args:
      waveforms, sample_rate, n_fft, hop, num_mels, lowest, highest, top: see `log_mel`.
      num_coefficients: how many of the ``num_mels`` coefficients are kept, the lowest first.

    Raises:
      ConfigError: more coefficients than mels, or a mel band that holds no frequency.
    """
    if not 1 <= num_coefficients <= num_mels:
        raise ConfigError(
            f"num_coefficients={num_coefficients}: expected from 1 to num_mels={num_mels}."
        )
    spectrogram = log_mel(
        waveforms,
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop=hop,
        num_mels=num_mels,
        lowest=lowest,
        highest=highest,
        top=top,
    )
    angles = np.pi / num_mels * np.outer(np.arange(num_mels) + 0.5, np.arange(num_coefficients))
    cosines = np.cos(angles) * math.sqrt(2 / num_mels)
    cosines[:, 0] /= math.sqrt(2)
    return _matmul(spectrogram, cosines)


# --- of features ----------------------------------------------------------------------------------


def deltas(features: Features, *, width: int = 9, order: int = 1) -> Features:
    """Returns features' derivatives along time, from a polynomial fitted around each frame.

    The ``order``-th derivative of the polynomial of that order that fits ``width`` frames best, a
    Savitzky-Golay filter; near the ends, of the one that fits the first or last ``width`` frames.
    Equal to ``librosa.feature.delta``.

    Args:
      features: a batch of features.
      width: frames, an odd number.
      order: 1 for deltas, 2 for delta-deltas.

    Raises:
      ConfigError: the width is even, not above the order, or exceeds the frames.

    Example:
      >>> ramp = jnp.arange(12.0)[None, :, None]
      >>> print(deltas(ramp).ravel()[:3].round(4))
      [1. 1. 1.]
    """
    frames = features.shape[-2]
    if width % 2 == 0 or not 1 <= order < width <= frames:
        raise ConfigError(
            f"deltas: expected an odd width above order={order} and at most the {frames} frames "
            f"that there are; found {width}."
        )
    half = width // 2
    powers = np.vander(np.arange(-half, half + 1), order + 1, increasing=True)
    weights = math.factorial(order) * np.linalg.pinv(powers)[order]
    count = frames - 2 * half
    middle = sum(
        float(weight) * lax.slice_in_dim(features, start, start + count, axis=-2)
        for start, weight in enumerate(weights)
    )
    around = [(0, 0)] * features.ndim
    around[-2] = (half, half)
    # the highest derivative of a polynomial is the same all along it
    return jnp.pad(middle, around, mode="edge")


def normalised(
    features: Features, *, per_feature: bool = False
) -> Float[Array, "*batch frames features"]:
    """Returns features with mean 0 and standard deviation 1 within each utterance.

    What is constant becomes 0.

    Args:
      features: a batch of features.
      per_feature: each feature by itself over the frames (cepstral mean and variance
        normalisation, for MFCCs) rather than all of them together.
    """
    axes = (-2,) if per_feature else (-2, -1)
    mean = features.mean(axis=axes, keepdims=True)
    centred = features - mean
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=axes, keepdims=True))
    constant = deviation <= 1e-5 * jnp.abs(mean)  # what is left is the mean's rounding
    return jnp.where(constant, 0, centred / jnp.where(constant, 1, deviation))


# --- parts ----------------------------------------------------------------------------------------


def _padded(waveforms: Waveforms, before: int, after: int) -> Float[Array, "*batch padded"]:
    return jnp.pad(waveforms, [(0, 0)] * (waveforms.ndim - 1) + [(before, after)])


def _framed(
    waveforms: Waveforms, length: int, hop: int, count: int
) -> Float[Array, "*batch count length"]:
    # XLA fuses this gather with what follows: half the time of joining blocks of `hop` samples, and
    # a transform as a matmul with windowed sines took four to eight times an FFT's time on a CPU
    return jnp.asarray(waveforms)[..., np.arange(count)[:, None] * hop + np.arange(length)]


def _matmul(values: Array, matrix: np.ndarray) -> Array:
    # accelerators' default would round the factors to fewer bits
    return jnp.matmul(values, jnp.asarray(matrix, values.dtype), precision=lax.Precision.HIGHEST)
