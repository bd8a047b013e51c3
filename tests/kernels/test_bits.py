"""The random bits behind dropout: the published cipher, uniform, and independent of each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdlopt.kernels.bits import sixteen_bits, threefry

# Random123's published answers: rounds, counter, key, result
ANSWERS = [
    (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    (20, (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    (20, (0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    (13, (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0xFD36D048, 0x2D17272C)),
    (13, (0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), ANSWERS)
def test_the_cipher_gives_the_published_answers(rounds, counter, key, expected):
    key, counter = [tuple(jnp.uint32(word) for word in words) for words in (key, counter)]
    assert tuple(int(word) for word in threefry(key, *counter, rounds=rounds)) == expected


@pytest.mark.parametrize("shape", [(), (1,), (5,), (7, 3), (100, 100), (2, 9, 6)])
def test_draws_have_their_shape_and_range(shape):
    draws = sixteen_bits(jax.random.key(1), shape)
    assert draws.shape == shape and draws.dtype == jnp.uint32
    assert int(draws.max()) < 2**16


def test_draws_are_uniform_and_uncorrelated():
    draws = np.asarray(sixteen_bits(jax.random.key(2), (400, 1000)))
    counts = np.bincount(draws.ravel() >> 8, minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3
    low = np.bincount(draws.ravel() & 255, minlength=256)
    assert stats.chisquare(low).pvalue > 1e-3
    bits = ((draws.ravel()[:, None] >> np.arange(16)) & 1).mean(0)
    np.testing.assert_allclose(bits, 0.5, atol=5 * 0.5 / np.sqrt(draws.size))
    centred = (draws - draws.mean()) / draws.std()
    for row, column in ((0, 1), (0, 250), (0, 500), (0, 750), (1, 0), (1, 1)):
        other = np.roll(centred, (row, column), (0, 1))
        assert abs((centred * other).mean()) < 5 / np.sqrt(draws.size), (row, column)


def test_keys_give_independent_draws_and_vmap_the_same_ones():
    keys = jax.random.split(jax.random.key(3), 8)
    together = np.asarray(jax.vmap(lambda key: sixteen_bits(key, (50, 40)))(keys))
    for key, draws in zip(keys, together, strict=True):
        np.testing.assert_array_equal(sixteen_bits(key, (50, 40)), draws)
    correlations = np.corrcoef(together.reshape(8, -1)) - np.eye(8)
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)
