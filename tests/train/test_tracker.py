"""`Tracker`: lines, best and patience are functions of values and config alone."""

from __future__ import annotations

import itertools
import json
import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.errors import DivergedError
from jdlopt.metrics import Metric
from jdlopt.train.loop import fit
from jdlopt.train.tracker import Tracker, UndefinedMetricWarning

TOTAL = 24
EVAL_EVERY = 6


def tracker(**changed) -> Tracker:
    options = {
        "monitor": "validation/accuracy", "total_steps": TOTAL, "eval_every": EVAL_EVERY,
        "log_every": 4, "batch_size": 8, "examples": 60, "patience": None,
    }  # fmt: skip
    return Tracker(**{**options, **changed})


def values(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(1, 2, TOTAL).astype(np.float32)
            for name in ("loss", "grad_norm", "learning_rate")}  # fmt: skip


def fed(measured, cuts, evaluations, **changed):
    """Feeds a tracker dispatch by dispatch; a new one takes over at each cut, as after a resume."""
    now, lines, ends = tracker(**changed), [], sorted({*cuts, *range(0, TOTAL, EVAL_EVERY), TOTAL})
    for begin, end in itertools.pairwise(ends):
        try:
            now.add_steps(begin, {name: value[begin:end] for name, value in measured.items()})
        except DivergedError as error:
            return lines + now.take_lines(), str(error)
        if now.is_evaluated(end):
            value = evaluations[(end - 1) // EVAL_EVERY]
            now.add_evaluation(end, {"validation/accuracy": value, "validation/table": [1]})
        lines += now.take_lines()
        saved = json.loads(json.dumps(now.to_dict()))
        now = tracker(**changed)
        now.restore(saved)
    return lines, now.best


@given(cuts=st.sets(st.integers(1, TOTAL - 1)), log_every=st.integers(1, TOTAL))
def test_lines_do_not_depend_on_cuts_or_on_resuming(cuts, log_every):
    evaluations = [0.1, 0.3, 0.2, 0.3]
    found, best = fed(values(), cuts, evaluations, log_every=log_every)
    expected, same = fed(values(), [], evaluations, log_every=log_every)
    assert (found, best) == (expected, same)
    assert best.step == 12 and best.since == 2
    assert [step for step, _ in found] == [
        step for step in range(1, TOTAL + 1) if step % log_every == 0 or step % EVAL_EVERY == 0
    ]
    begin = 0
    for step, line in found:
        np.testing.assert_allclose(line["train/loss"], values()["loss"][begin:step].mean(), 1e-6)
        assert line["learning_rate"] == values()["learning_rate"][step - 1]
        assert line["epoch"] == round(step * 8 / 60, 4)
        assert ("validation/accuracy" in line) == (step % EVAL_EVERY == 0)
        assert "validation/table" not in line
        begin = step


@given(cuts=st.sets(st.integers(1, TOTAL - 1)), bad=st.integers(1, TOTAL))
def test_divergence_keeps_the_lines_before_it_however_steps_were_cut(cuts, bad):
    measured = values()
    measured["grad_norm"][bad - 1] = math.inf
    found = fed(measured, cuts, [0.1] * 4, log_every=1)
    assert found == fed(measured, [], [0.1] * 4, log_every=1)
    lines, message = found
    assert [step for step, _ in lines] == list(range(1, bad))
    assert f"step {bad}: the gradient norm is inf" in message
    assert ("One step before" in message) == (bad > 1)


NUMBERS = st.one_of(st.just(math.nan), st.floats(0, 1))


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.booleans())
def test_the_best_is_the_first_best_defined_value_else_the_last(found, higher):
    name = "accuracy" if higher else "loss"
    now = tracker(monitor=f"validation/{name}", total_steps=len(found), eval_every=1)
    kept = 0
    for step, value in enumerate(found, start=1):
        now.add_steps(step - 1, {name: one[:1] for name, one in values().items()})
        if now.add_evaluation(step, {f"validation/{name}": value}):
            kept = step
    defined = [value for value in found if not math.isnan(value)]
    assert now.best.step == kept
    assert now.best.undefined == len(found) - len(defined)
    if not defined:
        assert kept == len(found) and now.best.since == 0 and math.isnan(now.best.value)
        assert "at every evaluation" in now.best.note()
        return
    want = max(defined) if higher else min(defined)
    assert now.best.value == want and kept == found.index(want) + 1
    assert now.best.since == len(found) - kept
    assert (now.best.note() is None) == (len(defined) == len(found))


def test_patience_does_not_run_before_a_value_is_defined():
    now = tracker(total_steps=9, eval_every=1, patience=2)
    ended = []
    for step, value in enumerate([math.nan, math.nan, math.nan, 0.5, math.nan, 0.4], start=1):
        assert now.may_end(1) == (step == 6)
        now.add_steps(step - 1, {"loss": np.ones(1, np.float32)})
        now.add_evaluation(step, {"validation/accuracy": value})
        ended.append(now.has_ended())
    assert ended == [False] * 5 + [True]


def test_a_run_whose_metric_is_never_defined_uses_the_last_and_tells_it_once(tmp_path, monkeypatch):
    own = types.ModuleType("own_metrics")
    own.NEVER = Metric(("classes",), lambda split: math.nan, ("classification",), True)
    monkeypatch.setitem(sys.modules, "own_metrics", own)
    config = {
        "data": {"source": "iris", "batch_size": 30},
        "model": {"name": "linear"},
        "train": {
            "epochs": 4,
            "patience": 2,
            "monitor": "validation/own_metrics:NEVER",
            "tensorboard": False,
            "evaluate_test": False,
        },
        "mesh": {"data": 1},
    }
    with pytest.warns(UndefinedMetricWarning) as told:
        result = fit(config, tmp_path / "run")
    assert len(told) == 1
    assert result.status == "done"
    assert result.record["best"]["step"] == result.record["steps"] > 2
    assert "validation/own_metrics:NEVER was undefined" in result.record["best"]["note"]
