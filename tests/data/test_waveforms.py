from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.signal import resample_poly

from jdlopt.data.waveforms import as_waveform


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int16", [-32768, 0, 16384], [-1.0, 0.0, 0.5]),
        ("int32", [-(2**31), 0, 2**30], [-1.0, 0.0, 0.5]),
        ("int64", [-32768, 0, 16384], [-1.0, 0.0, 0.5]),
        ("uint8", [0, 128, 192], [-1.0, 0.0, 0.5]),
        ("float64", [-1.0, 0.0, 0.5], [-1.0, 0.0, 0.5]),
    ],
)
def test_samples_of_every_type_lie_between_minus_one_and_one(dtype, values, expected):
    waveform = as_waveform(np.array(values, dtype), 8000, 8000)
    assert waveform.dtype == np.float32
    assert waveform.tolist() == expected


@given(arrays.arrays("int16", st.tuples(st.integers(1, 50), st.integers(1, 3))), st.integers(1, 80))
def test_channels_are_averaged_and_the_length_is_the_one_asked_for(values, samples):
    waveform = as_waveform(values, 8000, 8000, samples)
    expected = np.zeros(samples)
    count = min(samples, len(values))
    expected[:count] = values[:count].mean(axis=1) / 32768
    assert waveform.shape == (samples,)
    np.testing.assert_allclose(waveform, expected, atol=1e-6)


def test_the_sample_rate_is_changed_as_scipy_does():
    values = np.sin(np.arange(441) / 9)
    resampled = as_waveform(values, 44100, 16000)
    assert len(resampled) == 160
    np.testing.assert_allclose(resampled, resample_poly(values, 160, 441), atol=1e-6)
