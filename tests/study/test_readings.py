"""Readings: each fires on a study that was made for it, and is silent on the opposite."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.study.readings import readings
from jdlopt.study.readings.luck import expected_maximum, of_the_best, standard_error

SPACE = [
    {"key": "optim.learning_rate", "kind": "log_uniform", "low": 1e-4, "high": 1e-1, "log": True,
     "role": None, "condition": None},
    {"key": "model.dropout_rate", "kind": "uniform", "low": 0.0, "high": 0.5, "log": False,
     "role": None, "condition": None},
    {"key": "model.activation", "kind": "choice", "choices": ["relu", "gelu"],
     "role": "scientific", "condition": None},
]  # fmt: skip


def trial(number, value, rate=3e-3, dropout=0.25, state="done", trainings=None, best=90, total=100):
    trainings = trainings or [{"seed": 0, "fold": None, "value": value, "best_step": best}]
    return {
        "number": number,
        "state": state,
        "params": {"optim.learning_rate": rate, "model.dropout_rate": dropout},
        "values": None if state == "infeasible" else [value],
        "trainings": trainings,
        "steps": total,
        "total_steps": total,
        "reason": None,
    }


def with_activation(trials, name):
    return [{**one, "params": {**one["params"], "model.activation": name}} for one in trials]


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


def levels(trials, name, more=None, **shapes):
    found = readings({**study(trials), **(more or {})}, curves(trials, **shapes))
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
        trainings = [
            {"seed": s, "fold": None, "value": v, "best_step": 90} for s, v in enumerate(values)
        ]
        return trial(number, float(np.mean(values)), trainings=trainings)

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


def test_no_bound_is_proposed_beyond_what_can_be():
    low = [trial(i, 0.9 - 0.01 * i, dropout=0.001 * i) for i in range(20)]
    (level, one), _ = levels(low, "boundary")
    assert level == "note" and one["numbers"]["proposed"] == 0.0
    assert "fix model.dropout_rate at 0" in one["suggestion"]
    high = [trial(i, 0.9 - 0.01 * i, dropout=0.5 - 0.001 * i) for i in range(20)]
    [(level, one)] = levels(high, "boundary")
    assert level == "warning" and one["numbers"]["proposed"] == pytest.approx(0.75)


def test_equal_trials_are_not_told_apart_and_nothing_is_said_to_be_larger():
    equal = [trial(i, 0.9, rate=1e-3 * 1.1**i) for i in range(20)]
    [(level, one)] = levels(equal, "winner", accuracy=lambda n, t: 0.9)
    assert level == "warning" and one["numbers"]["difference"] == 0


def test_a_scientific_key_is_answered_with_the_best_over_everything_else():
    def answer(gap, **shapes):
        better = with_activation(spread(10), "relu")
        worse = [
            {**one, "number": 10 + one["number"], "values": [one["values"][0] - gap]}
            for one in with_activation(spread(10), "gelu")
        ]
        return levels(better + worse, "answer", **shapes)

    [(level, one)] = answer(0.3, accuracy=lambda n, t: 0.9)
    assert one["numbers"]["key"] == "model.activation"
    assert one["numbers"]["difference"] == pytest.approx(0.3)
    assert "relu: 0.9; gelu: 0.6" in one["text"]
    assert level == "note" and "open" not in one["suggestion"]

    [(_, one)] = answer(0.001, accuracy=lambda n, t: 0.9 + 0.05 * (-1) ** round(4 * t))
    assert "open" in one["suggestion"]

    few = with_activation(spread(18), "relu") + with_activation([trial(30, 0.5)], "gelu")
    [(level, one)] = levels(few, "answer")
    assert level == "warning" and "gelu" in one["suggestion"]


def test_folds_are_compared_pairwise_with_the_corrected_variance():
    from scipy import stats

    def folded(number, values):
        trainings = [
            {"seed": 0, "fold": f, "value": v, "best_step": 90} for f, v in enumerate(values)
        ]
        return trial(number, float(np.mean(values)), trainings=trainings)

    # folds differ by far more than the two trials do, and always in the same direction
    first = [0.91, 0.72, 0.83, 0.64, 0.95]
    gains = np.array([0.020, 0.022, 0.018, 0.021, 0.019])
    [(level, one)] = levels([folded(0, first), folded(1, first - gains)], "winner")
    variance = np.var(gains, ddof=1) * (1 / 5 + 1 / 4)
    expected = 2 * stats.t.sf(gains.mean() / math.sqrt(variance), 4)
    assert level == "good" and one["numbers"]["p_value"] == pytest.approx(expected)
    # the plain test over the same pairs is too sure of itself
    assert stats.ttest_1samp(gains, 0).pvalue < expected


def test_members_without_noise_are_equal_or_apart():
    def constant(number, value):
        trainings = [{"seed": s, "fold": None, "value": value, "best_step": 90} for s in range(3)]
        return trial(number, value, trainings=trainings)

    assert levels([constant(0, 0.9), constant(1, 0.8)], "winner")[0][0] == "good"
    assert levels([constant(0, 0.9), constant(1, 0.9)], "winner")[0][0] == "warning"


def on_rows(validation, **more):
    splits = {"train": {"count": 4 * validation}, "validation": {"count": validation}}
    return {"data": {"splits": splits}, **more}


@pytest.mark.parametrize(
    ("metric", "draw", "compute"),
    [
        ("accuracy", lambda rng, n: rng.random(n) < 0.8, np.mean),
        ("mse", lambda rng, n: rng.normal(size=n), lambda e: np.mean(e**2)),
        ("rmse", lambda rng, n: rng.normal(size=n), lambda e: np.sqrt(np.mean(e**2))),
        ("mae", lambda rng, n: rng.normal(size=n), lambda e: np.mean(np.abs(e))),
        ("r2", lambda rng, n: 0.5 * rng.normal(size=n), lambda e: 1 - np.mean(e**2)),
        ("log_loss", lambda rng, n: rng.exponential(size=n), np.mean),
        (
            "roc_auc",
            lambda rng, n: np.stack(
                [rng.exponential(size=n // 2), 3 * rng.exponential(size=n // 2)]
            ),
            lambda pair: np.mean(pair[0][:, None] < pair[1][None]),
        ),
    ],
)
def test_a_metrics_standard_error_is_how_much_it_varies_with_the_rows(metric, draw, compute):
    rng = np.random.default_rng(0)
    found = [compute(draw(rng, 100)) for _ in range(2000)]
    assert standard_error(metric, float(np.mean(found)), 100) == pytest.approx(
        np.std(found), rel=0.1
    )


def test_a_metric_whose_error_is_not_known_has_none():
    assert standard_error("rmse", math.nan, 10) is None and standard_error("mine", 0.5, 10) is None
    assert standard_error("accuracy", 0.5, 0) is None


def test_the_expected_maximum_is_that_of_drawn_numbers():
    rng = np.random.default_rng(0)
    assert expected_maximum(1) == 0.0
    for count in (2, 10, 100):
        drawn = rng.normal(size=(20_000, count)).max(1)
        assert expected_maximum(count) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 141)


@pytest.mark.parametrize("spread_of", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("count", [8, 64])
def test_luck_is_what_the_best_loses_on_new_rows(spread_of, count):
    rng = np.random.default_rng(0)
    told, lost = [], []
    for _ in range(300):
        true = rng.normal(0, spread_of, count)
        seen = true + rng.normal(size=count)
        best = int(np.argmin(seen))
        lost.append(true[best] - seen[best])
        told.append(of_the_best(seen, 1.0)[0])
    assert np.mean(told) == pytest.approx(np.mean(lost), rel=0.3)


@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_trials_that_err_alike_on_the_rows_have_less_luck(alike):
    rng = np.random.default_rng(0)
    told, ahead = [], []
    for _ in range(300):
        seen = alike**0.5 * rng.normal() + (1 - alike) ** 0.5 * rng.normal(size=32)
        told.append(of_the_best(seen, 1.0)[0])
        ahead.append(seen.mean() - seen.min())
    assert np.mean(told) == pytest.approx(np.mean(ahead), rel=0.25, abs=1e-9)


def many(count=40, best=0.95, step=0.004):
    return [trial(i, best - step * i, rate=1e-4 * 1.15**i) for i in range(count)]


def test_a_choice_among_many_on_few_rows_is_luck_and_folds_are_advised():
    [(level, one)] = levels(many(), "luck", on_rows(21))
    assert level == "warning" and "--folds" in one["suggestion"]
    assert 0.03 < one["numbers"]["luck"] < 0.09 and one["numbers"]["rows"] == 21
    [(level, one)] = levels(many(), "luck", on_rows(2000))
    assert level == "good" and one["numbers"]["luck"] < 0.006
    [(level, one)] = levels(many(), "luck", on_rows(21, folds=5))
    assert one["numbers"]["rows"] == 105 and "--folds" not in one["suggestion"]
    assert levels(many(), "luck") == [] and levels(many(2), "luck", on_rows(21)) == []


def test_trials_that_do_not_differ_are_not_called_good():
    equal = [trial(i, 0.9, rate=1e-3 * 1.1**i) for i in range(20)]
    within = many(20, step=0.001)
    for trials, more in ((equal, {}), (within, on_rows(30))):
        [(level, _)] = levels(trials, "equal", more, accuracy=lambda n, t: 0.9)
        assert level == "warning"
        for name in ("boundary", "sampling"):
            assert levels(trials, name, more) == []
    assert levels(within, "equal", on_rows(10**6)) == []
    assert levels(many(), "equal", on_rows(300)) == []


def based(trials, number=0, outside=None):
    row = {"origin": "base", "values": {}, "outside": outside or {}, "trial": number}
    return levels(trials, "base", {"enqueued": [row]})


def test_the_best_is_weighed_against_the_base_config():
    assert levels(spread(), "base") == []
    [(level, one)] = based(spread()[::-1], number=7)
    assert level == "note" and one["numbers"]["gain"] == pytest.approx(0.07)
    assert "0.9 instead of 0.83" in one["text"]
    [(level, one)] = based(spread())
    assert level == "warning" and "No trial is better" in one["text"]
    [(level, one)] = based(spread(1))
    assert level == "note" and "Only the base config, trial 0, has a value" in one["text"]
    [(_, one)] = based(spread(), 7, {"optim.learning_rate": 3.0})
    assert "but for optim.learning_rate" in one["text"]
    bad = [*spread(), {**trial(20, 0.0, state="infeasible"), "reason": "diverged at step 3"}]
    [(level, one)] = based(bad, 20)
    assert level == "note" and "diverged at step 3" in one["text"]


def test_changed_data_and_a_study_without_a_value_are_told():
    more = {"data_changes": [{"before": [0, 1], "changes": "  train: 9 there", "data": {}}]}
    [(level, one)] = levels(spread(), "data", more)
    assert level == "warning" and "after 2 trials" in one["text"] and "one of those" in one["text"]
    bad = [{**trial(i, 0.0, state="infeasible"), "reason": "rate: is negative"} for i in range(3)]
    [(level, one)] = levels(bad, "infeasible")
    assert level == "warning" and "All 3" in one["text"] and "rate: is negative" in one["text"]
    assert levels(bad, "sampling") == []
    assert "1 trial finished" in levels([trial(0, 0.9)], "sampling")[0][1]["text"]


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
        one["trainings"] = [] if value is None else one["trainings"]
        trials.append(one)
    table = curves(trials, accuracy=lambda n, t: float("nan")) if with_curves else pd.DataFrame()
    for one in readings(study(trials), table):
        assert one["level"] in ("warning", "note", "good")
        assert one["text"]
