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
from jdlopt.data.augment.sequence import timeline

SEQUENCE = {name: part for name, part in AUGMENTATIONS.items() if part.fits == ("sequence",)}

SEQUENCES = np.random.default_rng(0).normal(size=(6, 20, 3)).astype(np.float32)
TABLE = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
RAMP = np.tile(np.arange(64, dtype=np.float32), (200, 1))


@functools.cache
def program(name):
    """The compiled augmentation, and a list that grows with each trace."""
    traces = []

    def run(key, inputs, strength):
        traces.append(inputs.shape)
        return SEQUENCE[name].apply(key, inputs, strength)

    return jax.jit(run), traces


def run(name, inputs, strength, seed=0):
    return np.asarray(program(name)[0](jax.random.key(seed), inputs, jnp.float32(strength)))


# --- what holds for all ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEQUENCE)
@pytest.mark.parametrize("inputs", [SEQUENCES, TABLE], ids=["sequences", "table"])
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


@pytest.mark.parametrize("name", SEQUENCE)
def test_each_example_has_its_own_draw_and_each_key_its_own(name):
    same = np.tile(SEQUENCES[:1], (32, 1, 1))
    changed = run(name, same, 0.5)
    distinct = len({row.tobytes() for row in changed})
    assert distinct >= (6 if name == "feature_mask" else 12)  # 3 channels: 8 masks
    np.testing.assert_array_equal(run(name, same, 0.5), changed)
    assert (run(name, same, 0.5, seed=1) != changed).any()


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_population_of_strengths_equals_each_alone(name):
    keys = jax.random.split(jax.random.key(3), 3)
    strengths = jnp.array([0.0, 0.2, 0.7])
    together = jax.jit(jax.vmap(SEQUENCE[name].apply, (0, None, 0)))(keys, SEQUENCES, strengths)
    for key, strength, result in zip(keys, strengths, together):
        alone = program(name)[0](key, SEQUENCES, strength)
        np.testing.assert_allclose(result, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SEQUENCE)
def test_the_dtype_stays(name):
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        inputs = jax.ShapeDtypeStruct((4, 10, 2), dtype)
        strength = jax.ShapeDtypeStruct((), jnp.float32)
        result = jax.eval_shape(SEQUENCE[name].apply, jax.random.key(0), inputs, strength)
        assert (result.shape, result.dtype) == (inputs.shape, dtype)


# --- each by itself -------------------------------------------------------------------------------


def test_jitter_is_standard_normal_noise_times_the_strength():
    inputs = np.full((100, 60), 2.0, np.float32)
    for strength in (0.1, 3.0):
        noise = (run("jitter", inputs, strength) - inputs) / strength
        assert stats.kstest(noise.ravel(), "norm").pvalue > 0.001
        assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.4


def test_scaling_has_one_factor_an_example_and_channel():
    inputs = np.random.default_rng(2).uniform(1, 2, (400, 5, 3)).astype(np.float32)
    factors = run("scaling", inputs, 0.3) / inputs
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], inputs.shape), rtol=1e-5)
    assert stats.kstest(((factors[:, 0] - 1) / 0.3).ravel(), "norm").pvalue > 0.001
    table = inputs[:, :, 0]
    factors = run("scaling", table, 0.3) / table
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], table.shape), rtol=1e-5)
    assert len(np.unique(factors[:, 0])) > 300


@given(st.lists(st.integers(-12, 12), min_size=4, max_size=4))
@settings(max_examples=25, deadline=None)
def test_shifted_moves_rows_and_fills_in_zeros(positions):
    for inputs in (TABLE[:4, :7], SEQUENCES[:4, :7]):
        expected = np.zeros_like(inputs)
        for row, (values, position) in enumerate(zip(inputs, positions)):
            for t in range(7):
                if 0 <= t - position < 7:
                    expected[row, t] = values[t - position]
        np.testing.assert_array_equal(SHIFTED(inputs, np.array(positions)), expected)


SHIFTED = jax.jit(timeline.shifted)


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_time_shift_draws_whole_positions_uniformly(strength):
    inputs = np.tile(np.arange(1, 11, dtype=np.float32), (2000, 1))
    result = run("time_shift", inputs, strength)
    largest = round(10 * strength)
    middle = np.argmax(result > 0, axis=1) + 1 - result[np.arange(2000), np.argmax(result > 0, 1)]
    kept = result.max(axis=1) > 0
    positions = middle[kept].astype(int)
    assert (np.sort(np.unique(positions)) == np.arange(-min(largest, 9), min(largest, 9) + 1)).all()
    # a shift by the whole length leaves nothing, in either direction
    assert abs((~kept).mean() - (2 / 21 if strength == 1 else 0)) < 0.02
    assert stats.chisquare(np.unique(positions, return_counts=True)[1]).pvalue > 0.001


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_warped_equals_numpys_interpolation(seed):
    moved = np.random.default_rng(seed).normal(scale=8, size=(6, 20)).astype(np.float32)
    moved[0] = np.round(moved[0])
    positions = np.arange(20) + moved.astype(np.float64)
    expected = [
        [np.interp(row, np.arange(20), values[:, channel]) for channel in range(3)]
        for row, values in zip(positions, SEQUENCES)
    ]
    result = WARPED(SEQUENCES, moved)
    np.testing.assert_allclose(result, np.moveaxis(expected, 1, 2), atol=2e-6)
    np.testing.assert_allclose(WARPED(SEQUENCES[:, :, 1], moved), result[:, :, 1], atol=1e-6)


WARPED = jax.jit(timeline.warped)


def test_time_warp_of_a_ramp_is_a_monotone_sum_of_half_waves_between_fixed_ends():
    strength = 0.6
    positions = run("time_warp", RAMP, strength).astype(np.float64)
    np.testing.assert_allclose(positions[:, 0], 0, atol=1e-4)
    np.testing.assert_allclose(positions[:, -1], 63, atol=1e-4)
    speeds = np.diff(positions, axis=1)
    assert speeds.min() >= 1 - strength - 1e-4
    assert speeds.max() <= 1 + strength + 1e-4
    assert speeds.min() < 1 - 0.8 * strength  # the strength is reached, not merely kept to
    phases = np.pi * np.outer(np.arange(64) / 63, np.arange(1, 4))
    moved = (positions - RAMP).T / 63
    amplitudes, *_ = np.linalg.lstsq(np.sin(phases), moved, rcond=None)
    np.testing.assert_allclose(np.sin(phases) @ amplitudes, moved, atol=1e-5)
    weights = amplitudes * np.pi * np.arange(1, 4)[:, None] / strength
    np.testing.assert_allclose(np.abs(weights).sum(axis=0), 1, atol=1e-3)
    assert abs(weights.mean()) < 0.05


def test_feature_mask_hides_values_of_a_table_and_whole_channels_of_a_sequence():
    table = np.ones((400, 25), np.float32)
    hidden = run("feature_mask", table, 0.3) == 0
    assert stats.binomtest(int(hidden.sum()), hidden.size, 0.3).pvalue > 0.001
    assert (hidden.mean(axis=0) > 0.1).all()
    sequences = np.ones((2000, 4, 3), np.float32)
    hidden = run("feature_mask", sequences, 0.3) == 0
    assert (hidden == hidden[:, :1]).all()
    assert stats.binomtest(int(hidden[:, 0].sum()), 6000, 0.3).pvalue > 0.001
    assert (run("feature_mask", table, 1.0) == 0).all()


def test_spans_are_unions_of_half_open_ranges():
    starts, widths = np.array([[0, 5], [2, 3], [9, 0]]), np.array([[2, 3], [4, 1], [1, 0]])
    expected = np.zeros((3, 10), bool)
    for row in range(3):
        for start, width in zip(starts[row], widths[row]):
            expected[row, start : start + width] = True
    np.testing.assert_array_equal(
        timeline.spans(jnp.asarray(starts), jnp.asarray(widths), 10), expected
    )


@pytest.mark.parametrize(("strength", "widest"), [(0.0, 0), (0.25, 4), (0.3, 4), (1.0, 16)])
def test_spans_have_all_widths_up_to_the_widest_and_lie_inside(strength, widest):
    starts, widths = DRAW_SPANS(jax.random.key(5), (3000, 2), 16, jnp.float32(strength))
    starts, widths = np.asarray(starts), np.asarray(widths)
    assert set(np.unique(widths)) == set(range(widest + 1))
    assert starts.min() == 0
    assert (starts + widths).max() == 16 or widest == 0
    assert stats.chisquare(np.unique(widths, return_counts=True)[1]).pvalue > 0.001 or widest == 0


DRAW_SPANS = jax.jit(timeline.draw_spans, static_argnums=(1, 2))


def test_time_mask_hides_one_span_in_all_channels():
    inputs = np.ones((500, 16, 2), np.float32)
    hidden = run("time_mask", inputs, 0.5) == 0
    assert (hidden[..., 0] == hidden[..., 1]).all()
    widths = hidden[..., 0].sum(axis=1)
    assert (widths.min(), widths.max()) == (0, 8)
    edges = np.abs(np.diff(np.pad(hidden[..., 0], ((0, 0), (1, 1))).astype(int), axis=1)).sum(
        axis=1
    )
    assert set(np.unique(edges)) == {0, 2}
