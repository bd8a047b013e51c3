from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import resample_poly

from jdlopt.data.preprocess import audio
from jdlopt.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of modules that librosa imports
    import librosa

SETTINGS = [
    {"sample_rate": 16000, "n_fft": 400, "hop": 160, "num_mels": 40},
    {"sample_rate": 22050, "n_fft": 1024, "hop": 256, "num_mels": 128},
    {"sample_rate": 8000, "n_fft": 255, "hop": 300, "num_mels": 20},
]
IDS = ["speech", "music", "odd"]


def waveforms(samples=4321, n=2, seed=0):
    """Noise with a tone, and a second that is softer and partly silent."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, samples)).astype(np.float32)
    values += 5 * np.sin(np.arange(samples) * 0.3).astype(np.float32)
    values[1:] *= 1e-2
    values[1:, : samples // 3] = 0
    return values


def of_librosa(function, values, settings, **options):
    keys = {
        "sr": settings["sample_rate"],
        "n_fft": settings["n_fft"],
        "hop_length": settings["hop"],
        "n_mels": settings["num_mels"],
    }
    return np.stack([function(y=row, **keys, **options).T for row in values])


# --- against librosa ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_log_mel_equals_librosas(settings):
    values = waveforms()
    power = of_librosa(librosa.feature.melspectrogram, values, settings)
    expected = np.stack([librosa.power_to_db(row.T).T for row in power])
    result = jax.jit(lambda x: audio.log_mel(x, **settings))(values)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    unlimited = np.stack([librosa.power_to_db(row.T, top_db=None).T for row in power])
    result = audio.decibels(jnp.asarray(power), top=None)
    np.testing.assert_allclose(result, unlimited, rtol=1e-5, atol=1e-4)
    assert unlimited.min() < expected.min()


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_mfcc_equals_librosas(settings):
    values = waveforms()
    expected = of_librosa(librosa.feature.mfcc, values, settings, n_mfcc=13)
    result = jax.jit(lambda x: audio.mfcc(x, **settings, num_coefficients=13))(values)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "order"), [(9, 1), (9, 2), (3, 1), (5, 2)])
def test_deltas_equal_librosas(width, order):
    features = np.random.default_rng(1).normal(size=(2, 11, 4)).astype(np.float32)
    expected = librosa.feature.delta(features, width=width, order=order, axis=1)
    result = audio.deltas(features, width=width, order=order)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rate", "n_fft", "num_mels", "lowest", "highest"),
    [(16000, 400, 80, 0.0, None), (22050, 2048, 128, 0.0, None), (16000, 512, 40, 125.0, 7500.0)],
)
def test_mel_filters_equal_librosas(rate, n_fft, num_mels, lowest, highest):
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=num_mels, fmin=lowest, fmax=highest)
    result = audio.mel_filters(rate, n_fft, num_mels, lowest=lowest, highest=highest)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("samples", "n_fft", "hop"), [(1000, 128, 32), (1000, 128, 50), (200, 64, 64)]
)
def test_power_spectrogram_equals_librosas(samples, n_fft, hop):
    values = waveforms(samples)
    expected = np.abs(librosa.stft(values, n_fft=n_fft, hop_length=hop)) ** 2
    result = audio.power_spectrogram(values, n_fft=n_fft, hop=hop)
    scale = expected.max()
    np.testing.assert_allclose(result, expected.swapaxes(1, 2), rtol=1e-4, atol=1e-6 * scale)


# --- against closed forms -------------------------------------------------------------------------


def test_a_tone_peaks_at_its_frequency():
    n_fft, hop, bin_ = 256, 64, 20
    tone = np.cos(2 * np.pi * bin_ * np.arange(2048) / n_fft).astype(np.float32)
    inner = np.asarray(audio.power_spectrogram(tone, n_fft=n_fft, hop=hop))[4:-4]
    assert (inner.argmax(axis=-1) == bin_).all()
    # a periodic Hann window of N samples sums to N / 2, and a cosine has half its amplitude there
    np.testing.assert_allclose(inner[:, bin_], (n_fft / 4) ** 2, rtol=1e-4)


def test_one_waveform_or_any_batch_of_them():
    settings = SETTINGS[0]
    values = waveforms(2000, n=4)
    together = audio.mfcc(values.reshape(2, 2, -1), **settings)
    assert together.shape == (2, 2, 13, 20)
    alone = audio.mfcc(values[3], **settings)
    np.testing.assert_allclose(together[1, 1], alone, rtol=1e-4, atol=1e-3)
    silence = audio.log_mel(np.zeros(100, np.float32), **settings)  # shorter than a frame
    np.testing.assert_allclose(silence, np.full((1, 40), -100.0), rtol=1e-6)


def test_mono_is_the_mean_of_the_channels():
    stereo = np.random.default_rng(2).normal(size=(3, 10, 2)).astype(np.float32)
    np.testing.assert_allclose(audio.mono(stereo), stereo.sum(-1) / 2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("per_feature", [False, True])
def test_normalised_has_mean_0_and_deviation_1(per_feature):
    axes = 1 if per_feature else (1, 2)
    features = np.random.default_rng(3).normal(-60, 9, (3, 30, 5)).astype(np.float32)
    features[:, :, 2] -= 100
    result = np.asarray(jax.jit(lambda x: audio.normalised(x, per_feature=per_feature))(features))
    np.testing.assert_allclose(result.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=axes), 1, rtol=1e-4)
    assert per_feature or result[:, :, 2].mean() < -1
    silence = np.full((2, 63, 40), -100.0, np.float32)
    np.testing.assert_array_equal(audio.normalised(silence, per_feature=per_feature), 0 * silence)


# --- sample rates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(16000, 8000), (8000, 16000), (44100, 16000), (22050, 16000), (48000, 44100), (3, 2), (7, 7)],
)
@pytest.mark.parametrize("samples", [1, 700])
def test_resampling_equals_scipys(from_rate, to_rate, samples):
    values = np.random.default_rng(4).normal(size=(2, samples)).astype(np.float32)
    common = np.gcd(from_rate, to_rate)
    expected = resample_poly(
        values.astype(np.float64), to_rate // common, from_rate // common, axis=-1
    )
    for function in (audio.resample, audio.resample_host):
        result = function(values, from_rate, to_rate)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-5)


def test_resampling_keeps_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(8820) / 44100).astype(np.float32)
    result = np.asarray(audio.resample(tone, 44100, 16000))
    expected = np.sin(2 * np.pi * 440 * np.arange(3200) / 16000)
    np.testing.assert_allclose(result[100:-100], expected[100:-100], atol=2e-3)


# --- what can't be --------------------------------------------------------------------------------


def test_settings_that_can_not_be_are_named():
    values = np.zeros((1, 1000), np.float32)
    with pytest.raises(ConfigError, match=r"num_mels=128 with n_fft=128 at 16000 Hz: \d+ of"):
        audio.mel_filters(16000, 128, 128)
    with pytest.raises(ConfigError, match=r"highest <= 8000 Hz"):
        audio.mel_filters(16000, 512, 40, highest=9000.0)
    with pytest.raises(ConfigError, match=r"num_coefficients=41: expected from 1 to num_mels=40"):
        audio.mfcc(values, **SETTINGS[0], num_coefficients=41)
    for width, order in ((8, 1), (3, 3), (21, 1)):
        with pytest.raises(ConfigError, match="expected an odd width above"):
            audio.deltas(np.zeros((1, 20, 3), np.float32), width=width, order=order)
    with pytest.raises(ConfigError, match="larger common divisor"):
        audio.resample(values, 44101, 16000)
    with pytest.raises(ConfigError, match="expected samples per second"):
        audio.resample_host(values, 0, 16000)
