"""Messages: what is encoded is decoded, and what is no message is said in one line."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from fake import population, trained
from hypothesis import given
from hypothesis import strategies as st

from jdlopt.executor.messages import (
    ANSWERS,
    REQUESTS,
    CheckStudy,
    Failed,
    MessageError,
    Progress,
    Ready,
    RunTrained,
    Stop,
    StudyChecked,
    TrainRun,
    decode,
    encode,
)

ALL = [
    dataclasses.replace(population(3, 4), history={9: [0.5]}, execution_mode="scan", folds=[0, 1]),
    TrainRun({"seed": 0}, "/runs/a", 3),
    CheckStudy({"seed": 0}, {"optim.name": "sgd"}, [{"key": "x"}], ["x"], None, []),
    Stop(4),
    Ready("cpu", ["cpu:0"]),
    Progress(1, 2, 3, 4),
    trained(population(3, 4), reached={9: [0.5, 1.0]}, mode_seconds={"scan": 1e-3}, n_params=7),
    RunTrained(1, {"status": "done"}),
    StudyChecked({}, {}, {"n_params": "minimize"}, "validation/loss", 0, {"jax": "1"}),
    Failed(1, "defect", "KeyError", "…"),
]


@pytest.mark.parametrize("message", ALL, ids=lambda one: type(one).__name__)
def test_what_is_encoded_is_decoded(message):
    line = encode(message)
    assert "\n" not in line and decode(line, REQUESTS | ANSWERS) == message


@pytest.mark.parametrize("message", ALL, ids=lambda one: type(one).__name__)
@given(data=st.data())
def test_a_line_that_was_damaged_is_no_traceback(message, data):
    line = encode(message)
    start = data.draw(st.integers(0, len(line) - 1))
    length = data.draw(st.integers(1, 12))
    damaged = line[:start] + data.draw(st.text(max_size=3)) + line[start + length :]
    with contextlib.suppress(MessageError):
        assert type(decode(damaged, REQUESTS | ANSWERS)) in (REQUESTS | ANSWERS).values()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no JSON"),
        ("[1]", "expected one of"),
        ('{"type": "Halt"}', "expected one of"),
        ('{"type": "Stop"}', "Stop.task: is missing"),
        ('{"type": "Stop", "task": true}', "Stop.task: expected int, found True"),
        ('{"type": "Stop", "task": 1, "now": 1}', "Stop: has no field 'now'"),
        ('{"type": "TrainRun", "config": [], "workdir": ""}', "TrainRun.config: expected dict"),
    ],
)
def test_what_is_wrong_is_said(line, says):
    with pytest.raises(MessageError, match=says.replace(".", r"\.")):
        decode(line, REQUESTS)
