"""Cutout: one square an image, where and how large it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdlopt.data.augment.image.cutout import cutout, erased


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_a_square_is_hidden(fill):
    images = np.random.default_rng(0).random((3, 9, 12, 2), dtype=np.float32)
    middles = [(4, 6), (0, 11), (8, 5)]
    found = erased(
        jnp.asarray(images),
        *(jnp.asarray(axis) for axis in zip(*middles)),
        jnp.float32(5),
        cutout_fill=fill,
    )
    for image, (row, column), hidden in zip(images, middles, found, strict=True):
        expected = image.copy()
        square = np.s_[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        expected[square] = 0 if fill == "zero" else image.mean((0, 1))
        np.testing.assert_allclose(hidden, expected, rtol=1e-6)


def test_squares_have_their_side_and_are_uniform_over_the_image():
    n, size = 4000, 8
    found = np.asarray(jax.jit(cutout)(jax.random.key(1), jnp.ones((n, size, size, 1)), 3 / size))
    hidden = found[..., 0] == 0
    rows, columns = hidden.any(2), hidden.any(1)
    np.testing.assert_array_equal(hidden, rows[:, :, None] & columns[:, None, :])
    middles = []
    for side in (rows, columns):
        first, count = side.argmax(1), side.sum(1)
        assert (count <= 3).all() and (count >= 2).all()  # cut off at the border
        middles.append(np.where((first == 0) & (count == 2), 0, first + 1))
    counts = np.bincount(middles[0] * size + middles[1], minlength=size * size)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_one_program_serves_all_strengths_and_none_changes_no_bit():
    images = jnp.asarray(np.random.default_rng(2).normal(size=(4, 6, 10, 3)).astype(np.float32))
    traces = []

    @jax.jit
    def hide(key, images, strength):
        traces.append(strength)
        return cutout(key, images, strength)

    key = jax.random.key(3)
    assert np.asarray(hide(key, images, jnp.float32(0))).tobytes() == np.asarray(images).tobytes()
    assert (hide(key, images, jnp.float32(4)) == 0).all()
    assert len(traces) == 1
    strengths = jnp.asarray([0.0, 0.5, 1.0])
    together = jax.jit(jax.vmap(cutout, (None, None, 0)))(key, images, strengths)
    for strength, found in zip(strengths, together, strict=True):
        np.testing.assert_array_equal(found, hide(key, images, strength))
