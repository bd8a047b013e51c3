"""launch/local.py: who is told what, how it ends, and a real run of two processes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mixed_tables import make_table

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "local.py"

STAND_IN = """
import os, pathlib, signal, sys, time

index = int(os.environ["JDLOPT_PROCESS_ID"])
folder, wishes = pathlib.Path(sys.argv[1]), sys.argv[2:]

def save(number, frame):
    (folder / f"saved-{index}").write_text(str(number))
    sys.exit(130)

signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
names = ("JDLOPT_COORDINATOR", "JDLOPT_NUM_PROCESSES", "XLA_FLAGS")
(folder / f"pid-{index}").write_text(str(os.getpid()))
(folder / f"told-{index}").write_text("\\n".join(os.environ.get(name, "-") for name in names))
print(f"stand-in {index} speaks", file=sys.stderr)
if wishes[index] == "wait":
    time.sleep(600)
sys.exit(int(wishes[index]))
"""


def local_module():
    spec = importlib.util.spec_from_file_location("launch_local", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(words: list[str], jdlopt: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, "JDLOPT": jdlopt},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        _, errors = process.communicate(timeout=90)
        pytest.fail(f"not within {seconds} s:\n{errors}")
    return process.returncode, errors


@pytest.fixture
def stand_in(tmp_path) -> str:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return f"{sys.executable} {script}"


def wait_for_files(folder: Path, pattern: str, count: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, f"no {count} files {pattern}"
        time.sleep(0.05)


def test_each_process_is_told_who_it_is(stand_in, tmp_path):
    words = ["--processes=3", "--devices-per-process=2", "--", str(tmp_path), "0", "0", "0"]
    code, errors = finish(start(words, stand_in))
    assert code == 0, errors
    told = [(tmp_path / f"told-{index}").read_text().split("\n") for index in range(3)]
    assert told[0] == told[1] == told[2]
    coordinator, count, flags = told[0]
    assert coordinator.startswith("127.0.0.1:")
    assert count == "3"
    assert flags.count("--xla_force_host_platform_device_count") == 1
    assert flags.endswith("--xla_force_host_platform_device_count=2")
    assert "stand-in 0 speaks" in errors
    assert "[process 1] stand-in 1 speaks" in errors
    assert "[process 2] stand-in 2 speaks" in errors


def test_the_environment_is_otherwise_kept():
    environment = {"XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=8", "HOME": "h"}
    told = local_module().process_environment(environment, 1, 4, 5000, None)
    assert told == {
        **environment,
        "JDLOPT_COORDINATOR": "127.0.0.1:5000",
        "JDLOPT_NUM_PROCESSES": "4",
        "JDLOPT_PROCESS_ID": "1",
    }
    told = local_module().process_environment(environment, 1, 4, 5000, 3)
    assert told["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=3"


def test_the_names_are_those_that_jdlopt_reads():
    from jdlopt.train import processes

    told = local_module().process_environment({}, 1, 4, 5000, None)
    assert set(told) == {processes.COORDINATOR, processes.NUM_PROCESSES, processes.PROCESS_ID}


@pytest.mark.slow
def test_failed_process_takes_the_others_with_it(stand_in, tmp_path):
    code, errors = finish(start(["--processes=2", "--", str(tmp_path), "wait", "7"], stand_in))
    assert code == 7
    assert "killing process 0" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid-0").read_text()), 0)


@pytest.mark.slow
def test_killed_process_counts_as_failed(stand_in, tmp_path):
    process = start(["--processes=2", "--", str(tmp_path), "wait", "wait"], stand_in)
    wait_for_files(tmp_path, "told-*", 2)
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    code, _ = finish(process)
    assert code == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process(stand_in, tmp_path, number):
    process = start(["--processes=2", "--", str(tmp_path), "wait", "wait"], stand_in)
    wait_for_files(tmp_path, "told-*", 2)
    process.send_signal(number)
    code, _ = finish(process)
    assert code == 130
    assert [(tmp_path / f"saved-{index}").read_text() for index in (0, 1)] == [str(int(number))] * 2


@pytest.mark.parametrize("words", [["--processes=0", "--", "train"], ["--processes=2"]])
def test_wrong_flags_are_told(words):
    code, errors = finish(start(words))
    assert code == 2
    assert "usage:" in errors


# --- a real run -----------------------------------------------------------------------------------

CONFIG = """
def get_config():
    return {
        "seed": 5,
        "data": {"source": %r, "target": "size", "batch_size": 64},
        "model": {"name": "fusion", "width": 16, "hidden": (16,), "dropout_rate": 0.1},
        "loss": {"name": "cross_entropy"},
        "optim": {"name": "adam", "learning_rate": 1e-3},
        "train": {
            "steps": 100,
            "eval_every": 50,
            "log_every": 5,
            "checkpoint_every": 40,
            "evaluate_test": False,
        },
    }
"""


TWO = ["--processes=2", "--devices-per-process=2", "--"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A table of numbers, images and texts: each process reads its rows of all three."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "made.py").write_text(CONFIG % str(make_table(folder)))
    return folder / "made.py"


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> Path:
    """The directory of a run of two processes that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    code, errors = finish(start([*TWO, "train", f"--config={config}", f"--workdir={workdir}"]))
    assert code == 0, errors
    return workdir


def curve(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_are_one_run(config, straight, tmp_path):
    one = ["--processes=1", "--devices-per-process=4", "--"]
    alone = tmp_path / "alone"
    code, errors = finish(start([*one, "train", f"--config={config}", f"--workdir={alone}"]))
    assert code == 0, errors

    assert [line["step"] for line in curve(straight)] == list(range(5, 101, 5))
    for ours, theirs in zip(curve(straight), curve(alone), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    record = json.loads((straight / "result.json").read_text())
    assert record["status"] == "done"
    assert len(record["devices"]) == 4


@pytest.mark.slow
def test_wrong_config_is_the_users_fault_in_every_process(config, tmp_path):
    words = ["--processes=2", "--", "train", f"--config={config}", "--config.optim.nme=adam"]
    code, errors = finish(start([*words, f"--workdir={tmp_path / 'run'}"]))
    assert code == 2
    assert "optim.nme" in errors
    assert "Traceback" not in errors
