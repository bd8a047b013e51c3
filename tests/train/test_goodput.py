"""Goodput: where a run's time went, against a hand count and over any way that a run can go."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.train import goodput
from jdlopt.train.goodput import (
    CHECKPOINT,
    COMPILE,
    DATA_WAIT,
    EVALUATION,
    KINDS,
    LOST,
    RESTART,
    START,
    STEPS,
    Account,
    Stopwatch,
    resumed,
)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += seconds


def nonzero(account: Account) -> dict[str, float]:
    return {kind: seconds for kind, seconds in account.seconds.items() if seconds}


def test_a_killed_run_is_counted_as_by_hand():
    clock = Clock()
    first = Stopwatch(now=clock)
    first.go_on(resumed(None, None, 0, 0.0))
    clock.after(5)
    first.move(COMPILE, 3)
    first.switch(STEPS)
    clock.after(10)
    first.step = 40
    with first.during(EVALUATION):
        clock.after(2)
    saved = first.account()  # in the checkpoint of step 40
    with first.during(CHECKPOINT):
        clock.after(1)
    clock.after(8)
    first.move(DATA_WAIT, 2)
    first.step = 70
    newest = first.account()  # and then it is killed, and 4 seconds later it is started again
    assert nonzero(newest) == {
        START: 2, COMPILE: 3, STEPS: 16, EVALUATION: 2, CHECKPOINT: 1, DATA_WAIT: 2,
    }  # fmt: skip

    second = Stopwatch(now=clock)
    clock.after(3)
    second.move(COMPILE, 1)
    second.go_on(resumed(newest, saved, 40, 4.0))
    clock.after(2)
    second.switch(STEPS)
    clock.after(9)
    account = second.account()
    assert nonzero(account) == {
        START: 2, COMPILE: 4, STEPS: 19, EVALUATION: 2, CHECKPOINT: 1, DATA_WAIT: 2, LOST: 6,
        RESTART: 8,
    }  # fmt: skip
    assert (account.starts, account.lost_steps) == (2, 30)
    assert account.wall() == 26 + 4 + 14 and account.share() == 19 / 44


AMOUNT = st.floats(0, 1e4)
KIND = st.sampled_from(KINDS)
EVENTS = st.one_of(
    st.tuples(st.just("pass"), AMOUNT),
    st.tuples(st.just("switch"), KIND),
    st.tuples(st.just("during"), st.tuples(KIND, AMOUNT)),
    st.tuples(st.just("move"), st.tuples(KIND, AMOUNT)),
    st.tuples(st.just("save"), st.none()),
    st.tuples(st.just("kill"), AMOUNT),
)


@given(st.lists(EVENTS, max_size=30))
def test_the_parts_add_up_to_the_wall_time_whatever_happens(events):
    clock, wall, saved = Clock(), 0.0, None
    watch = Stopwatch(now=clock)
    watch.go_on(resumed(None, None, 0, 0.0))
    for what, how in events:
        match what, how:
            case "pass", seconds:
                clock.after(seconds)
                wall += seconds
            case "switch", kind:
                watch.switch(kind)
            case "during", (kind, seconds):
                with watch.during(kind):
                    clock.after(seconds)
                wall += seconds
            case "move", (kind, seconds):
                watch.move(kind, seconds)
            case "save", _:
                saved = watch.account()
            case "kill", away:
                newest = watch.account()
                watch = Stopwatch(now=clock)
                watch.go_on(resumed(newest, saved, saved.step if saved else 0, away))
                wall += away
        account = watch.account()
        assert all(seconds >= 0 for seconds in account.seconds.values())
        assert account.wall() == pytest.approx(wall, rel=1e-9, abs=1e-6)


def test_an_account_lies_beside_the_checkpoints_and_damage_counts_as_none(tmp_path):
    account = Account().with_more(STEPS, 3.0)
    goodput.write(tmp_path, account, ended=False)
    at = json.loads((tmp_path / goodput.FILE).read_text())["at"]
    assert goodput.read(tmp_path, at + 7) == (account, pytest.approx(7.0))
    goodput.write(tmp_path, account, ended=True)
    assert goodput.read(tmp_path, math.inf) == (account, 0.0)  # nobody was kept waiting
    record = account.to_dict()
    for damaged in ({}, [], {**record, "starts": "1"}, {**record, "seconds": {STEPS: -1.0}}):
        (tmp_path / goodput.FILE).write_text(json.dumps(damaged))
        assert goodput.read(tmp_path, at) == (None, 0.0)
