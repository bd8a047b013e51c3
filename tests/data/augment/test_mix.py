"""Mixing: the shares' distribution, and what inputs and targets become."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.data.augment.mix.cutmix import cutmix
from jdlopt.data.augment.mix.mixing import symmetric_beta
from jdlopt.data.augment.mix.mixup import mixup

DRAW = jax.jit(symmetric_beta, static_argnums=2)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 4.0, 60.0])
def test_shares_are_beta_distributed(alpha):
    draws = np.asarray(DRAW(jax.random.key(0), alpha, (4000,)), np.float64)
    assert (draws >= 0).all() and (draws <= 1).all()
    beta, found = stats.beta(alpha, alpha), np.sort(draws)
    places = np.linspace(1e-5, 1 - 1e-5, 400)  # closer to 0 and 1 float32 tells too few apart
    distance = np.abs(np.searchsorted(found, places) / 4000 - beta.cdf(places)).max()
    assert distance < 1.95 / np.sqrt(4000)  # Kolmogorov's bound at a probability of 0.1%
    np.testing.assert_allclose(draws.var(), beta.var(), rtol=0.1)


def test_shares_without_strength_and_with_hardly_any():
    draws = jax.vmap(lambda alpha: symmetric_beta(jax.random.key(1), alpha, (1000,)))(
        jnp.asarray([0.0, 1e-8, 1e-4, 1e4])
    )
    assert np.isfinite(draws).all()
    np.testing.assert_array_equal(draws[0], 1)
    assert set(np.unique(draws[1]).tolist()) <= {0.0, 1.0}
    assert ((draws[2] < 1e-3) | (draws[2] > 1 - 1e-3)).mean() > 0.99
    np.testing.assert_allclose(draws[3], 0.5, atol=0.03)


@pytest.fixture(scope="module")
def targets():
    return jnp.eye(7)


@pytest.mark.parametrize("shape", [(5,), (8, 3), (6, 4, 2)])
def test_mixup_is_a_mean_of_two_examples_and_their_targets(targets, shape):
    inputs = np.random.default_rng(0).normal(size=(7, *shape)).astype(np.float32)
    mixed, soft = jax.jit(mixup)(jax.random.key(2), jnp.asarray(inputs), targets, 1.0)
    assert mixed.dtype == jnp.float32 and soft.dtype == jnp.float32
    shares = np.diag(soft)
    assert len(set(shares.tolist())) == 7  # each example has its own
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    for index, share in enumerate(shares):
        assert soft[index, index - 1] == pytest.approx(1 - share, abs=1e-6)
        expected = share * inputs[index] + (1 - share) * inputs[index - 1]
        np.testing.assert_allclose(mixed[index], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 30, 2), (40, 2), (40,)])
def test_cutmix_pastes_a_rectangle_and_mixes_by_its_area(targets, shape):
    inputs = np.random.default_rng(1).normal(size=(7, *shape)).astype(np.float32)
    mixed, soft = (np.asarray(x) for x in jax.jit(cutmix)(jax.random.key(3), inputs, targets, 1.0))
    space = shape[:-1] or shape
    pasted = 0
    for index in range(7):
        own, other = (
            (mixed[index] == inputs[from_]).reshape(*space, -1).all(-1)
            for from_ in (index, index - 1)
        )
        np.testing.assert_array_equal(own, ~other)
        where = np.argwhere(other)
        if len(where):  # a rectangle: all that lies between its extremes
            low, high = where.min(0), where.max(0) + 1
            assert np.prod(high - low) == len(where)
            pasted += 1
        assert soft[index, index] == pytest.approx(own.mean(), abs=1e-6)
        assert soft[index, index - 1] == pytest.approx(other.mean(), abs=1e-6)
    assert pasted >= 4


def test_cutmix_cuts_the_images_proportions_at_uniform_places():
    n, height, width = 3000, 40, 80
    inputs = jnp.asarray((np.arange(n) % 2)[:, None, None, None] * np.ones((1, height, width, 1)))
    mixed, _ = jax.jit(cutmix)(jax.random.key(4), inputs, jnp.zeros((n, 1)), 1.0)
    other = np.asarray(mixed != inputs)[..., 0]
    rows, columns = other.any(2), other.any(1)
    tall, wide = rows.sum(1) / height, columns.sum(1) / width
    # one that lies within the image has sides in proportion, and its share is uniform (α = 1)
    within = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]) & (tall > 0)
    np.testing.assert_allclose(tall[within], wide[within], atol=1.01 / height)
    # the middle of a small one is uniform: as many in each quarter
    small = within & (tall < 0.3)
    halves = (rows.argmax(1) + rows.sum(1) / 2 > height / 2) * 2 + (
        columns.argmax(1) + columns.sum(1) / 2 > width / 2
    )
    assert stats.chisquare(np.bincount(halves[small], minlength=4)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_no_strength_changes_no_bit_one_program_serves_all_and_a_population(targets, name):
    inputs = np.random.default_rng(2).normal(size=(7, 6, 5, 1)).astype(np.float32)
    inputs[0, 0, 0, 0], inputs[1, 0, 0, 0] = np.nan, -0.0
    traces = []

    @jax.jit
    def apply(key, inputs, targets, strength):
        traces.append(strength)
        return AUGMENTATIONS[name].apply(key, inputs, targets, strength)

    key = jax.random.key(5)
    for before, after in zip(
        (inputs, targets), apply(key, inputs, targets, jnp.float32(0)), strict=True
    ):
        assert np.asarray(after).tobytes() == np.asarray(before).tobytes()
    strengths = jnp.asarray([0.0, 0.4, 1.0])
    population = jax.jit(jax.vmap(AUGMENTATIONS[name].apply, (None, None, None, 0)))
    together = population(key, inputs, targets, strengths)
    for member, strength in enumerate(strengths):
        for one, all_ in zip(apply(key, inputs, targets, strength), together, strict=True):
            np.testing.assert_allclose(all_[member], one, atol=1e-6)
    assert len(traces) == 1
    assert not np.array_equal(together[0][2], inputs)
