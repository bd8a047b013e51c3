"""Readings: each fires on a study that was made for it, and is silent on the opposite."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.study.readings import readings

SPACE = [
    {"key": "optim.learning_rate", "kind": "log_uniform", "low": 1e-4, "high": 1e-1, "log": True,
     "role": None, "condition": None},
    {"key": "model.dropout_rate", "kind": "uniform", "low": 0.0, "high": 0.5, "log": False,
     "role": None, "condition": None},
]  # fmt: skip


def trial(number, value, rate=3e-3, dropout=0.25, state="done", members=None, best=90, total=100):
    members = members or [{"seed": 0, "fold": None, "value": value, "best_step": best}]
    return {
        "number": number,
        "state": state,
        "params": {"optim.learning_rate": rate, "model.dropout_rate": dropout},
        "values": None if state == "infeasible" else [value],
        "members": members,
        "steps": total,
        "total_steps": total,
        "reason": None,
    }


def study(trials):
    objectives = [{"name": "validation/accuracy", "direction": "maximize"}]
    return {"objectives": objectives, "space": SPACE, "trials": trials}


def curves(trials, accuracy=lambda n, t: 1 - 0.5**t, loss=lambda n, t: 0.5**t):
    rows = [
        {"trial": one["number"], "seed": 0, "fold": -1, "step": 5 * (index + 1),
         "validation/accuracy": accuracy(one["number"], index / 4),
         "validation/loss": loss(one["number"], index / 4)}
        for one in trials
        for index in range(20)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def levels(trials, name, **shapes):
    found = readings(study(trials), curves(trials, **shapes))
    return [(one["level"], one) for one in found if one["name"] == name]


def spread(count=20, **more):
    return [
        trial(i, 0.9 - 0.01 * i, rate=10 ** (-2.5 + 0.05 * (-1) ** i * i), **more)
        for i in range(count)
    ]


def test_best_trials_at_a_bound_ask_for_a_wider_range():
    edge = [trial(i, 0.9 - 0.01 * i, rate=0.1 * 0.9**i) for i in range(20)]
    [(level, one)] = levels(edge, "boundary")
    assert level == "warning" and one["numbers"]["key"] == "optim.learning_rate"
    assert one["numbers"]["proposed"] == pytest.approx(0.1 * math.sqrt(1e3), rel=1e-6)
    assert [level for level, _ in levels(spread(), "boundary")] == ["good"]


def test_a_good_region_with_one_point_was_hardly_sampled():
    lonely = [trial(0, 0.99), *[trial(i, 0.5 + 0.001 * i) for i in range(1, 20)]]
    assert levels(lonely, "sampling")[0][0] == "warning"
    crowded = [trial(i, 0.99 - 0.0001 * i if i < 8 else 0.5) for i in range(20)]
    assert levels(crowded, "sampling")[0][0] == "good"


def test_infeasible_trials_are_counted_and_their_cause_is_named():
    good = [trial(i, 0.8, rate=1e-4 * 1.2**i) for i in range(16)]
    bad = [trial(16 + i, 0.0, rate=0.02 * 1.3**i, state="infeasible") for i in range(5)]
    [(level, one)] = levels(good + bad, "infeasible")
    assert level == "warning" and one["numbers"]["key"] == "optim.learning_rate"
    assert one["numbers"]["threshold"] == pytest.approx(0.02)
    assert levels(good, "infeasible")[0][0] == "good"


def test_a_winner_within_the_noise_is_no_winner():
    def noisy(number, t):
        return 0.9 + 0.05 * (-1) ** round(4 * t)

    assert levels(spread(), "winner", accuracy=noisy)[0][0] == "warning"
    assert levels(spread(), "winner", accuracy=lambda n, t: 0.9)[0][0] == "note"


def test_repeats_are_compared_by_welchs_t():
    def repeated(number, values):
        members = [
            {"seed": s, "fold": None, "value": v, "best_step": 90} for s, v in enumerate(values)
        ]
        return trial(number, float(np.mean(values)), members=members)

    apart = [repeated(0, [0.9, 0.91, 0.92]), repeated(1, [0.7, 0.71, 0.72])]
    close = [repeated(0, [0.9, 0.8, 0.95]), repeated(1, [0.7, 0.9, 0.85])]
    assert levels(apart, "winner")[0][0] == "good"
    [(level, one)] = levels(close, "winner")
    assert level == "warning"
    from scipy import stats

    expected = stats.ttest_ind([0.9, 0.8, 0.95], [0.7, 0.9, 0.85], equal_var=False).pvalue
    assert one["numbers"]["p_value"] == pytest.approx(expected)


def test_a_validation_loss_that_rises_again_is_overfitting():
    def rising(number, t):
        return 1 - 0.5 * t if t < 1 else 0.5 + 0.1 * (t - 1)

    assert levels(spread(), "overfitting", loss=rising)[0][0] == "warning"
    assert levels(spread(), "overfitting")[0][0] == "good"


def test_lengths_too_short_too_long_and_right():
    assert levels(spread(best=20), "length")[0][1]["numbers"]["steps"] == 26
    improving = levels(spread(best=100), "length", accuracy=lambda n, t: 0.1 * t)
    assert improving[0][0] == "warning"
    assert levels(spread(best=75), "length")[0][0] == "good"


def test_late_noise_is_weighed_against_the_differences():
    def shaky(number, t):
        return 0.9 + 0.2 * (-1) ** round(4 * t)

    assert levels(spread(), "noise", accuracy=shaky)[0][0] == "warning"
    assert levels(spread(), "noise")[0][0] == "good"


_values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["done", "pruned", "infeasible", "running"]),
            _values,
            st.floats(1e-4, 1e-1),
        ),
        max_size=24,
    ),
    st.booleans(),
)
def test_no_study_is_too_strange(rows, with_curves):
    trials = []
    for number, (state, value, rate) in enumerate(rows):
        one = trial(number, 0.0, rate=rate, state=state)
        one["values"] = None if value is None else [value]
        one["members"] = [] if value is None else one["members"]
        trials.append(one)
    table = curves(trials, accuracy=lambda n, t: float("nan")) if with_curves else pd.DataFrame()
    for one in readings(study(trials), table):
        assert one["level"] in ("warning", "note", "good")
        assert one["text"]
