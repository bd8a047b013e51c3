"""Real studies of the command line: started, killed, and looked at from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
STEPS, EVERY = 240, 40
CONFIG = """
from jdlopt.study.space import choice, log_uniform, uniform

def get_config():
    return {
        "seed": 3,
        "data": {"source": %r, "batch_size": 32, "validation_fraction": 0.2},
        "model": {"name": "mlp", "features": (64,), "dropout_rate": 0.2},
        "optim": {"name": "sgd", "learning_rate": 1e-2},
        "mesh": {"data": 1},
        "train": {
            "steps": %d, "eval_every": %d, "log_every": 40, "checkpoint_seconds": 0,
            "tensorboard": False,
        },
    }

def get_space():
    return {
        "optim.learning_rate": log_uniform(1e-3, 1e30),
        "model.features": choice((64,), (32, 32)),
        "model.dropout_rate": uniform(0.0, 0.5),
    }
"""
"""A third of the space or so diverges: learning rates up to 1e30."""


@dataclass(frozen=True)
class Studies:
    """Starts ``jdlopt tune`` on one config and looks at what it leaves."""

    folder: Path
    config: Path

    def start(
        self, workdir: Path, *flags: str, before: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Starts ``jdlopt tune``; ``before`` comes before its words."""
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        given = [f"--config={self.config}", f"--workdir={workdir}", "--keep=0", "--no-report"]
        return subprocess.Popen(
            [*before, sys.executable, "-m", "jdlopt.cli", "tune", *given, *flags],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], expect: int = 0, seconds: float = 240) -> str:
        """Waits for a coordinator, checks its exit code, and returns what it said."""
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_tree(process)
            pytest.fail(f"not within {seconds} s")
        assert process.returncode == expect, errors
        return errors

    def tune(self, workdir: Path, *flags: str, expect: int = 0) -> str:
        """Runs ``jdlopt tune`` to its end and returns what it said."""
        return self.finish(self.start(workdir, *flags), expect)


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started and that still live."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kills a coordinator and its workers at one moment."""
    pids = [process.pid, *children(process.pid)]
    for pid in pids:
        kill(pid)
    process.communicate()
    gone(pids[1:])


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def gone(pids: list[int], seconds: float = 20) -> None:
    """Checks that processes end without being told to."""
    wait(lambda: not [pid for pid in pids if lives(pid)], seconds, "worker processes are left")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait(happened: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def trials_of(url: str) -> list[Any]:
    """Returns the trials as Optuna reads them from a storage, in order."""
    if url.startswith("journal:"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
        storage: Any = optuna.storages.JournalStorage(backend)
    else:
        storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name="study", storage=storage).trials
    except KeyError:
        return []  # no coordinator has made it yet
    finally:
        if hasattr(storage, "engine"):
            storage.remove_session()
            storage.engine.dispose()


def finished(url: str) -> dict[int, Any]:
    """Returns the records of the trials that are finished, by number."""
    return {
        trial.number: (trial.state, trial.values, trial.params, trial.user_attrs["record"])
        for trial in trials_of(url)
        if trial.state.is_finished()
    }


def check(workdir: Path, url: str, count: int) -> dict[str, Any]:
    """Checks that a study is whole: every trial once, in the storage, study.json and the curves."""
    there = finished(url)
    assert sorted(there) == list(range(count))
    record = json.loads((workdir / "study.json").read_text())
    assert record["status"] == "done"
    assert [trial["number"] for trial in record["trials"]] == list(range(count))
    for trial in record["trials"]:
        state, values, params, _ = there[trial["number"]]
        assert trial["state"] == {"COMPLETE": "done", "FAIL": "infeasible"}[state.name]
        assert trial["values"] == values
        assert trial["params"]["optim.learning_rate"] == params["optim.learning_rate"]
        if trial["state"] == "infeasible":
            assert "diverged at step" in trial["reason"]
    points = {json.dumps(trial["params"], sort_keys=True) for trial in record["trials"]}
    assert len(points) == count, "a point was drawn twice"
    curves = pd.read_parquet(workdir / "curves.parquet")
    assert not curves.duplicated(["trial", "seed", "fold", "step"]).any()
    for trial in record["trials"]:
        steps = curves[curves["trial"] == trial["number"]]["step"]
        last = STEPS if trial["state"] == "done" else (trial["steps"] - 1) // EVERY * EVERY
        assert sorted(steps) == list(range(EVERY, last + 1, EVERY)), trial["number"]
    left = {path.name for path in workdir.iterdir() if not path.name.startswith(".")}
    assert not left & {"populations", "curves"}
    return record


def make(folder: Path) -> Studies:
    """Makes an NPZ of three classes of points, and a config that trains on it in a second."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    points = (rng.normal(size=(3, 6))[labels] + rng.normal(size=(300, 6))).astype(np.float32)
    np.savez(folder / "blobs.npz", x_train=points[:240], y_train=labels[:240],
             x_test=points[240:], y_test=labels[240:])  # fmt: skip
    (folder / "config.py").write_text(CONFIG % (str(folder / "blobs.npz"), STEPS, EVERY))
    return Studies(folder, folder / "config.py")
