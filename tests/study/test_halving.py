"""Halving: where the rungs are, and who goes on."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.study.halving import asha, median, rungs

_values = st.dictionaries(st.integers(0, 99), st.floats(-1e6, 1e6), min_size=1, max_size=20)
_history = st.lists(st.floats(-1e6, 1e6), max_size=30)


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(2, 5))
def test_rungs_are_evaluations_before_the_end_and_grow(total, every, reduction):
    found = rungs(total, every, reduction)
    assert all(step % every == 0 and step < total for step in found)
    assert found == sorted(set(found))


@given(_values, _history, st.integers(2, 5))
def test_asha_keeps_the_best_and_never_the_worse_of_two(values, history, reduction):
    stopped = asha(values, history, reduction)
    kept = [value for trial, value in values.items() if trial not in stopped]
    assert max(values.values()) in kept
    assert all(values[trial] < min(kept) for trial in stopped)
    everything = [*values.values(), *history]
    if len(set(everything)) == len(everything):
        assert len(kept) <= max(1, len(everything) // reduction)


@given(_values, _history)
def test_median_stops_what_is_below_it(values, history):
    middle = np.median([*values.values(), *history])
    assert set(median(values, history)) == {t for t, value in values.items() if value < middle}


def test_history_raises_the_bar():
    values = {0: 0.5, 1: 0.6, 2: 0.7}
    assert asha(values, []) == [0, 1]
    assert asha(values, [0.1] * 9) == []  # all of them are in the best third of twelve
    assert median(values, [0.9] * 9) == [0, 1, 2]


def test_an_undefined_value_is_worse_than_any_other():
    for rule in (asha, median):
        assert rule({0: math.nan, 1: 0.2, 2: 0.3, 3: 0.2}, [], 2)[0] == 0
        assert rule({0: math.nan, 1: math.nan}, [], 2) == []
