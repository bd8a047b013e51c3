from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.data.augment.audio.background_noise import with_noise
from jdlopt.data.augment.audio.gain import amplified
from jdlopt.data.augment.audio.speed import at_speed
from jdlopt.data.frames import real_frames

AUDIO = {
    name: part
    for name, part in AUGMENTATIONS.items()
    if {"waveform", "spectrogram"}.issuperset(part.fits)
}

RNG = np.random.default_rng(0)
WAVEFORMS = RNG.normal(size=(6, 50)).astype(np.float32)
STEREO = RNG.normal(size=(6, 50, 2)).astype(np.float32)
SPECTROGRAMS = RNG.normal(loc=-40, scale=20, size=(6, 20, 12)).astype(np.float32)
OF_WAVEFORMS = [name for name in AUDIO if not name.startswith("spec_")]
OF_SPECTROGRAMS = [name for name in AUDIO if name.startswith("spec_")]
CASES = [
    *((name, inputs) for name in OF_WAVEFORMS for inputs in (WAVEFORMS, STEREO)),
    *((name, SPECTROGRAMS) for name in OF_SPECTROGRAMS),
]
IDS = [f"{name}-{inputs.shape[1:]}" for name, inputs in CASES]


@functools.cache
def program(name, **options):
    """The compiled augmentation, and a list that grows with each trace."""
    traces = []

    def run(key, inputs, strength):
        traces.append(inputs.shape)
        return AUDIO[name].apply(key, inputs, strength, **options)

    return jax.jit(run), traces


def run(name, inputs, strength, seed=0, **options):
    compiled, _ = program(name, **options)
    return np.asarray(compiled(jax.random.key(seed), inputs, jnp.float32(strength)))


# --- what holds for all ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "inputs"), CASES, ids=IDS)
def test_strength_0_is_the_identity_to_the_bit_and_needs_no_program_of_its_own(name, inputs):
    inputs = inputs.copy()
    inputs.flat[:4] = [-0.0, np.inf, 3e38, 1e-45]
    changed = run(name, inputs, 0.5)
    assert run(name, inputs, 0.0).tobytes() == inputs.tobytes()
    run(name, inputs, 0.25)
    assert program(name)[1].count(inputs.shape) == 1
    assert changed.shape == inputs.shape
    assert changed.dtype == np.float32
    assert (changed != inputs).any()


@pytest.mark.parametrize("name", AUDIO)
def test_each_example_has_its_own_draw_and_each_key_its_own(name):
    same = np.tile((SPECTROGRAMS if name in OF_SPECTROGRAMS else WAVEFORMS)[:1], 2)
    same = np.repeat(same, 32, axis=0)
    changed = run(name, same, 0.5)
    assert len({row.tobytes() for row in changed}) > 12
    np.testing.assert_array_equal(run(name, same, 0.5), changed)
    assert (run(name, same, 0.5, seed=1) != changed).any()


@pytest.mark.parametrize("name", AUDIO)
def test_a_population_of_strengths_equals_each_alone(name):
    inputs = SPECTROGRAMS if name in OF_SPECTROGRAMS else WAVEFORMS
    keys = jax.random.split(jax.random.key(3), 3)
    strengths = jnp.array([0.0, 0.2, 0.7])
    together = jax.jit(jax.vmap(AUDIO[name].apply, (0, None, 0)))(keys, inputs, strengths)
    for key, strength, result in zip(keys, strengths, together):
        alone = program(name)[0](key, inputs, strength)
        np.testing.assert_allclose(result, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", AUDIO)
def test_the_dtype_stays(name):
    shape = (4, 10, 3) if name in OF_SPECTROGRAMS else (4, 10)
    for dtype in (jnp.float32, jnp.bfloat16):
        inputs = jax.ShapeDtypeStruct(shape, dtype)
        strength = jax.ShapeDtypeStruct((), jnp.float32)
        result = jax.eval_shape(AUDIO[name].apply, jax.random.key(0), inputs, strength)
        assert (result.shape, result.dtype) == (shape, dtype)


# --- noise ----------------------------------------------------------------------------------------


def snr_db(waveforms, result):
    axes = tuple(range(1, waveforms.ndim))
    waveforms, result = waveforms.astype(np.float64), result.astype(np.float64)
    noise_power = np.square(result - waveforms).mean(axis=axes)
    return 10 * np.log10(np.square(waveforms).mean(axis=axes) / noise_power)


@pytest.mark.parametrize("waveforms", [WAVEFORMS, STEREO], ids=["mono", "stereo"])
def test_noise_is_added_at_the_ratio_that_is_asked(waveforms):
    noise = np.random.default_rng(4).uniform(-7, 9, waveforms.shape).astype(np.float32)
    asked = np.array([-10.0, 0.0, 3.0, 10.0, 20.0, 30.0], np.float32)
    result = np.asarray(with_noise(*map(jnp.asarray, (waveforms, noise, asked))))
    np.testing.assert_allclose(snr_db(waveforms, result), asked, atol=1e-3)
    added = (result - waveforms) / noise
    np.testing.assert_allclose(added, added.mean(1, keepdims=True) * np.ones_like(added), rtol=0.01)


def test_silence_stays_silent_and_silent_noise_adds_nothing():
    waveforms, asked = jnp.asarray(WAVEFORMS), jnp.zeros(6)
    noise = jnp.ones_like(waveforms)
    np.testing.assert_array_equal(with_noise(0 * waveforms, noise, asked), 0 * waveforms)
    np.testing.assert_array_equal(with_noise(waveforms, 0 * noise, asked), waveforms)


def test_background_noise_is_white_and_its_ratio_uniform_up_to_the_strength():
    waveforms = np.sin(np.arange(400) / 3).astype(np.float32) * np.ones((300, 1), np.float32)
    result = run("background_noise", waveforms, 0.5)
    ratios = 10 ** (-snr_db(waveforms, result) / 20)
    assert stats.kstest(ratios / 0.5, "uniform").pvalue > 0.001
    noise = (result - waveforms) / ratios[:, None] / np.sqrt(np.mean(waveforms**2))
    loud = ratios > 0.05
    assert stats.kstest(noise[loud].ravel(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(noise[loud, 1:].ravel(), noise[loud, :-1].ravel())[0, 1]) < 0.02


# --- speed, gain, shift ---------------------------------------------------------------------------


@given(st.lists(st.integers(-900, 2048), min_size=6, max_size=6))
@settings(max_examples=25, deadline=None)
def test_at_speed_equals_numpys_interpolation(changes):
    changes = np.array(changes, np.float32) / 1024  # so that every position is exact
    positions = np.arange(50) * (1.0 + changes[:, None])
    expected = [
        np.interp(row, np.arange(50), values, right=0) for row, values in zip(positions, WAVEFORMS)
    ]
    np.testing.assert_allclose(AT_SPEED(WAVEFORMS, changes), expected, atol=1e-5)


AT_SPEED = jax.jit(at_speed)


def test_at_speed_scales_the_frequency_of_a_tone():
    times = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 200 * times).astype(np.float32)
    changes = np.array([-0.2, 0.0, 0.25], np.float32)
    result = np.asarray(AT_SPEED(np.tile(tone, (3, 1)), changes))
    for row, change in zip(result, changes):
        heard = min(16000, int(15999 / (1 + change)))
        expected = np.sin(2 * np.pi * 200 * (1 + change) * times)
        np.testing.assert_allclose(row[:heard], expected[:heard], atol=2e-3)
        assert (row[heard + 1 :] == 0).all()


def test_speed_is_uniform_around_1():
    ramp = np.tile(np.arange(1, 101, dtype=np.float32), (500, 1))
    changes = (run("speed", ramp, 0.2)[:, 40] - 41) / 40
    assert stats.kstest((changes / 0.2 + 1) / 2, "uniform").pvalue > 0.001


def test_gain_is_uniform_in_decibels():
    waveforms = np.random.default_rng(5).uniform(1, 2, (500, 4)).astype(np.float32)
    factors = run("gain", waveforms, 6.0) / waveforms
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones((1, 4)), rtol=1e-5)
    decibels = 20 * np.log10(factors[:, 0])
    assert stats.kstest((decibels / 6 + 1) / 2, "uniform").pvalue > 0.001
    asked = np.array([-20.0, 0.0, 6.0], np.float32)
    expected = waveforms[:3] * 10 ** (asked[:, None] / 20)
    np.testing.assert_allclose(
        amplified(jnp.asarray(waveforms[:3]), jnp.asarray(asked)), expected, rtol=1e-5
    )


def test_audio_shift_moves_by_up_to_its_share_of_the_length():
    impulse = np.zeros((500, 41), np.float32)
    impulse[:, 20] = 1
    places = run("audio_shift", impulse, 0.25).argmax(axis=1) - 20
    assert set(places) == set(range(-10, 11))


# --- SpecAugment ----------------------------------------------------------------------------------


def test_hidden_frames_and_padding_are_not_taken_for_one_another():
    padded = SPECTROGRAMS.copy()
    lengths = np.array([20, 20, 20, 12, 5, 18])
    for row, length in enumerate(lengths):
        padded[row, length:] = -80.0
    for seed in range(20):
        made = run("spec_time_mask", padded, 0.9, seed, spec_masks=3)
        np.testing.assert_array_equal(real_frames(jnp.asarray(made)).sum(axis=1), lengths)
        assert (made[np.arange(20) >= lengths[:, None]] == -80.0).all()
    assert (made != padded).any()


@pytest.mark.parametrize("masks", [1, 3])
@pytest.mark.parametrize(("name", "axis"), [("spec_time_mask", 1), ("spec_frequency_mask", 2)])
def test_masks_are_bands_along_one_axis_filled_with_the_mean(name, axis, masks):
    features = np.random.default_rng(6).normal(3, 1, (200, 20, 16, 2)).astype(np.float32)
    result = run(name, features, 0.25, spec_masks=masks)
    hidden = result != features
    means = features.mean(axis=(1, 2, 3), keepdims=True) * np.ones_like(features)
    np.testing.assert_allclose(result[hidden], means[hidden], rtol=1e-5)
    across = tuple({1, 2, 3} - {axis})
    band = hidden.any(axis=across)
    np.testing.assert_array_equal(band, hidden.all(axis=across))
    edges = np.abs(np.diff(np.pad(band, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1)
    assert edges.max() == 2 * masks
    widest = features.shape[axis] // 4
    assert band.sum(axis=1).max() <= masks * widest
    if masks == 1:
        assert set(band.sum(axis=1)) == set(range(widest + 1))


def test_masks_work_without_a_channel_axis():
    result = run("spec_frequency_mask", SPECTROGRAMS, 0.5)
    hidden = result != SPECTROGRAMS
    assert hidden.any()
    np.testing.assert_array_equal(hidden, hidden[:, :1] & np.ones_like(hidden))
