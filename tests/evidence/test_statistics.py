"""Intervals, p values and power of paired differences, against references and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jdlopt.evidence import statistics

SOME = st.lists(st.floats(-1, 1), min_size=5, max_size=30)


def test_the_fixed_interval_is_the_paired_t_interval() -> None:
    values = np.random.default_rng(0).normal(0.01, 0.02, 12)
    found = statistics.fixed_effect(values)
    reference = stats.ttest_1samp(values, 0.0)
    interval = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_the_bayes_factor_is_that_of_a_normal_prior_on_the_effect() -> None:
    """By numerical integration of the noncentral t density over the prior."""
    t, pairs, prior = 2.5, 9, 1.0
    effects = np.linspace(-8, 8, 4001)
    under = stats.nct.pdf(t, pairs - 1, effects * math.sqrt(pairs))
    weights = stats.norm.pdf(effects, 0, math.sqrt(prior))
    expected = np.trapezoid(under * weights, effects) / stats.t.pdf(t, pairs - 1)
    assert statistics.bayes_factor(t, pairs, prior) == pytest.approx(expected, rel=1e-4)


def test_the_radius_is_where_the_bayes_factor_says_so() -> None:
    for pairs in (5, 8, 20, 100):
        t = statistics.radius(pairs, 0.05)
        assert statistics.bayes_factor(t, pairs) == pytest.approx(20.0)
    assert math.isinf(statistics.radius(4, 0.05))


@pytest.mark.slow
def test_looking_again_and_again_rarely_finds_what_is_not_there() -> None:
    """400 sequences without a difference, looked at after every pair up to 60."""
    draws = np.random.default_rng(1).normal(0.0, 1.0, (400, 60))
    always = fixed = 0
    for row in draws:
        looks = [row[:count] for count in range(5, 61)]
        found = [statistics.sequential_effect(some) for some in looks[::5]]
        always += any(one.low > 0 or one.high < 0 for one in found)
        fixed += any(statistics.fixed_effect(some).p_value < 0.05 for some in looks[::5])
    assert always <= 400 * 0.05 + 2 * math.sqrt(400 * 0.05 * 0.95)
    assert fixed > 400 * 0.12  # what the fixed interval would do to who looks twelve times


@given(SOME)
def test_the_sequential_interval_is_the_wider_one_and_agrees_with_its_p_value(values) -> None:
    fixed = statistics.fixed_effect(values, resolution=0.01)
    always = statistics.sequential_effect(values, resolution=0.01)
    assert always.low <= fixed.low + 1e-12 and always.high >= fixed.high - 1e-12
    if always.low > 1e-9 or always.high < -1e-9:
        assert always.p_value < 0.05 + 1e-9


def test_rounding_is_not_taken_for_certainty() -> None:
    """Five pairs that all differ by one example of thirty are no proof."""
    assert statistics.sequential_effect([1 / 30] * 5).low > 0
    assert statistics.sequential_effect([1 / 30] * 5, resolution=1 / 30).low < 0


def test_what_can_not_differ_has_an_interval_of_nothing() -> None:
    found = statistics.sequential_effect([0.0] * 6)
    assert (found.low, found.high, found.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("sequential", [False, True])
def test_the_power_is_what_another_simulation_finds(sequential: bool) -> None:
    looks, rng = [5, 8, 11, 14], np.random.default_rng(7)
    claimed = statistics.power(0.9, 1.0, looks, sequential=sequential)
    found = 0
    for _ in range(800):
        values = rng.normal(0.9, 1.0, 14)
        some = [statistics.effect_of(values[:n], sequential) for n in looks]
        found += any(one.low > 0 for one in (some if sequential else some[-1:]))
    assert found / 800 == pytest.approx(claimed, abs=0.05)


def test_the_fixed_power_is_the_closed_form() -> None:
    count, effect = 10, 0.8
    reach = stats.t.ppf(0.975, count - 1)
    expected = stats.nct.sf(reach, count - 1, effect * math.sqrt(count))
    assert statistics.power(effect, 1.0, [count], sequential=False) == pytest.approx(
        expected, abs=0.03
    )


def test_the_detectable_gain_is_found_eight_times_in_ten() -> None:
    gain = statistics.detectable(0.02, [10], sequential=False)
    assert statistics.power(gain, 0.02, [10], sequential=False, seed=3) == pytest.approx(
        0.8, abs=0.04
    )


def test_the_seeds_needed_make_it_clear_and_one_less_does_not() -> None:
    for sequential in (False, True):
        effect = statistics.Effect(0.01, -0.01, 0.03, 0.3, 0.03, 10, sequential)
        needed = statistics.seeds_needed(effect)
        assert needed is not None

        def half(count: int, sequential: bool = sequential) -> float:
            reach = statistics.radius(count) if sequential else stats.t.ppf(0.975, count - 1)
            return reach * 0.03 / math.sqrt(count)

        assert half(needed) < 0.01 <= half(needed - 1)
    assert statistics.seeds_needed(statistics.Effect(0.0, -1, 1, 1.0, 1.0, 9, True)) is None


def test_false_discoveries_are_controlled_as_scipy_does() -> None:
    values = {"a": 0.01, "b": 0.02, "c": 0.5}
    expected = stats.false_discovery_control(list(values.values()))
    assert list(statistics.false_discovery(values).values()) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lowers_nothing(values) -> None:
    named = {str(place): value for place, value in enumerate(values)}
    adjusted = statistics.holm(named)
    assert all(adjusted[name] >= named[name] for name in named)
    order = sorted(named, key=named.get)
    assert [adjusted[name] for name in order] == sorted(adjusted.values())
