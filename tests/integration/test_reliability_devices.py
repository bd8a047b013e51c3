"""A run moves: from eight devices to fewer, from two processes to one, and stays the same run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jdlopt.train import checksums

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def assert_same_curve(runs, one: Path, other: Path) -> None:
    assert len(runs.curve(one)) == len(runs.curve(other))
    for ours, theirs in zip(runs.curve(one), runs.curve(other), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


# --- fewer devices --------------------------------------------------------------------------------


def on(devices: int, in_memory: bool) -> tuple[str, ...]:
    return (
        "mesh.data=-1",
        f"mesh.fsdp={min(devices, 2)}",
        f"data.in_memory={in_memory}",
        f"train.steps_per_dispatch={4 if in_memory else 1}",
    )


@pytest.fixture(scope="module", params=[True, False], ids=["in memory", "streamed"])
def eight(request, runs, tmp_path_factory) -> tuple[bool, Path, Path]:
    """How data come; the directory of an undisturbed run on eight devices; that of half a run."""
    folder = tmp_path_factory.mktemp("eight")
    overrides = on(8, request.param)
    runs.train(folder / "whole", *overrides, devices=8)
    process = runs.start(folder / "half", *overrides, devices=8)
    runs.wait(process, lambda: runs.newest(folder / "half") >= 24)
    process.kill()
    process.communicate()
    assert runs.newest(folder / "half") < 48
    return request.param, folder / "whole", folder / "half"


@pytest.mark.parametrize("devices", [1, 4])
def test_run_saved_on_eight_devices_goes_on_with_fewer(runs, eight, tmp_path, devices):
    in_memory, whole, half = eight
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    runs.train(workdir, *on(devices, in_memory), devices=devices)
    assert_same_curve(runs, whole, workdir)
    record = runs.result(workdir)
    assert len(record["devices"]) == devices
    fsdp = min(devices, 2)
    assert (record["mesh"]["data"], record["mesh"]["fsdp"]) == (devices // fsdp, fsdp)
    assert len(runs.result(whole)["devices"]) == 8
    assert json.loads((workdir / "config.json").read_text())["mesh"]["fsdp"] == fsdp


def test_run_of_eight_devices_is_evaluated_on_one(runs, eight):
    _, whole, _ = eight
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jdlopt.cli",
            "eval",
            f"--workdir={whole}",
            "--split=test",
            "--json",
        ],
        env=runs.environment(devices=1),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout)["metrics"], runs.result(whole)["metrics"]
    for name in ("test/loss", "test/accuracy"):
        assert found[name] == pytest.approx(expected[name], abs=1e-5)


# --- two processes --------------------------------------------------------------------------------


def start_two(runs, workdir: Path, *overrides: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2"]
    return subprocess.Popen(
        [*launcher, "--devices-per-process=1", "--", *runs.words(workdir, *overrides)],
        env=runs.environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks(launcher: subprocess.Popen[str]) -> list[int]:
    text = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_sigterm_to_one_process_stops_all_at_the_same_step(runs, tmp_path):
    workdir = tmp_path / "run"
    process = start_two(runs, workdir, "train.steps=9000", "train.checkpoint_every=30")
    runs.wait(process, lambda: runs.newest(workdir) >= 30)
    started = ranks(process)
    os.kill(started[1], signal.SIGTERM)
    errors = runs.finish(process, expect=130)
    assert len(started) == 2 and not alive(started)
    stopped = runs.result(workdir)
    assert stopped["status"] == "interrupted" and 30 <= stopped["steps"] < 9000
    assert errors.count(f"interrupted at step {stopped['steps']} of") == 2
    newest = workdir / "checkpoints" / f"step-{stopped['steps']}"
    assert runs.newest(workdir) == stopped["steps"] and checksums.damage(newest) is None


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_rank_ends_the_other_and_the_run_goes_on(runs, whole, tmp_path, rank):
    workdir = tmp_path / "run"
    process = start_two(runs, workdir)
    runs.wait(process, lambda: runs.newest(workdir) >= 12)
    started = ranks(process)
    os.kill(started[rank], signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode not in (0, 2) and not alive(started)
    assert runs.newest(workdir) < 48
    runs.finish(start_two(runs, workdir))
    record = runs.result(workdir)
    assert len(record["devices"]) == 2
    assert record["goodput"]["starts"] == 2 and record["goodput"]["seconds"]["restart"] > 0
    assert_same_curve(runs, whole, workdir)


DEADLINE = 6


@pytest.mark.parametrize("rank", [0, 1])
def test_stopped_rank_ends_the_run_by_the_deadline_and_one_goes_on(runs, whole, tmp_path, rank):
    workdir = tmp_path / "run"
    process = start_two(runs, workdir, f"train.hang_seconds={DEADLINE}")
    runs.wait(process, lambda: runs.newest(workdir) >= 12)
    started = ranks(process)
    os.kill(started[rank], signal.SIGSTOP)
    _, errors = process.communicate(timeout=DEADLINE + 10)
    assert process.returncode == 124 and not alive(started), errors
    assert f"process {rank} has not" in errors
    assert "Thread 0x" in (workdir / f"hang-{1 - rank}.txt").read_text()
    assert runs.newest(workdir) < 48
    runs.train(workdir)
    assert len(runs.result(workdir)["devices"]) == 1
    assert_same_curve(runs, whole, workdir)
