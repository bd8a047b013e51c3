"""Worker processes: what they say, what they are stopped at, and how they end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jdlopt.errors import UserError
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import Progress, TrainRun
from jdlopt.executor.processes import Ended

pytestmark = pytest.mark.slow


@pytest.fixture
def executor(monkeypatch):
    folder = str(Path(__file__).parent)
    paths = [folder, os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    made = Executor.start("noisy_worker", 1)
    yield made
    made.close()


def results(made):
    while made.busy:
        received = made.receive(1.0)
        if received is not None and not isinstance(received.message, Progress):
            yield received.message


def test_a_worker_answers_and_a_stop_ends_what_it_does_alone(executor):
    executor.submit(TrainRun({"how": "answer"}, ""))
    assert [one.record for one in results(executor)] == [{"status": "done"}]
    executor.submit(TrainRun({"how": "wait"}, ""))
    waiting = executor.submit(TrainRun({"how": "answer"}, ""))
    while executor.receive(1.0) is None:
        pass  # until it has begun
    assert executor.stop() == [waiting]
    assert len(list(results(executor))) == 1
    executor.submit(TrainRun({"how": "answer"}, ""))
    assert len(list(results(executor))) == 1


def test_a_file_that_is_gone_is_told_and_is_no_result(executor):
    executor.submit(TrainRun({"how": "file"}, ""))
    with pytest.raises(UserError, match=r"/nowhere/x: can't be read.*goes on from there"):
        list(results(executor))


def test_a_worker_that_says_what_is_no_message_is_ended_and_no_traceback(executor):
    executor.submit(TrainRun({"how": "noise"}, ""))
    with pytest.raises(UserError, match=r"said what can't be read.*no JSON: 'no message"):
        list(results(executor))


def test_how_a_process_ended_is_said_in_words():
    assert str(Ended(-9)) == "was killed by SIGKILL"
    assert str(Ended(3)) == "ended with code 3"
