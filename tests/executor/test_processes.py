"""Worker processes: what they say, what they are stopped at, and how they end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jdlopt.errors import UserError
from jdlopt.executor.executor import Executor
from jdlopt.executor.messages import ANSWERS, Progress, Ready, RunTrained, TrainRun, decode, encode
from jdlopt.executor.processes import ONE_CORE, Ended, Workers
from jdlopt.executor.relay import Relay

pytestmark = pytest.mark.slow


@pytest.fixture
def program(monkeypatch):
    folder = str(Path(__file__).parent)
    paths = [folder, os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return "noisy_worker"


@pytest.fixture
def executor(program):
    made = Executor.start(program, 1)
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


LAUNCHER = """
import signal, subprocess, sys

run = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: run.terminate())
code = run.wait()
sys.exit(128 - code if code < 0 else code)
"""


def test_a_launcher_passes_on_what_workers_say_and_how_they_end(program):
    workers = Workers(program, one_core=True, launcher=[sys.executable, "-c", LAUNCHER])
    made = Executor(workers, 1)
    try:
        made.submit(TrainRun({"how": "answer"}, ""))
        made.submit(TrainRun({"how": "die"}, ""))
        done, died = results(made)
        assert done.record == {"status": "done"}
        assert died.message.endswith("its worker process was killed by SIGKILL")
    finally:
        made.close()


def test_a_relay_passes_on_what_its_worker_says_and_how_it_ends(program, tmp_path):
    relay = Relay(program, {ONE_CORE: "1"}, str(tmp_path))
    relay.send(encode(TrainRun({"how": "answer"}, "", 3)))
    lines, noise, code = [], "", None
    while len(lines) < 2:
        said = relay.receive()
        lines, noise = [*lines, *said.lines], noise + said.noise
    ready, done = (decode(line, ANSWERS) for line in lines)
    assert isinstance(ready, Ready) and ready.host
    assert done == RunTrained(3, {"status": "done"}) and "no message" not in "".join(lines)
    relay.end()
    while code is None:
        said = relay.receive()
        noise, code = noise + said.noise, said.code
    assert code == -9 and "what libraries print" in noise
