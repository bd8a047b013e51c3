"""Studies over the machines of a real Ray cluster: of two nodes, on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as on a machine: not with the eight devices of the tests."""
    folders = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "XLA_FLAGS": "",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=400
    )


def test_a_killed_worker_and_a_killed_machine_cost_no_trial_and_one_that_joins_works():
    act = "import json, measure_cluster as m; print(json.dumps(m.measured(24, 2, 2, 1, False)))"
    ran = python("-c", act)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert [one["what"] for one in found["happened"]] == ["kill_worker", "kill_machine", "join"]
    assert (found["finished"], found["lost"], found["twice"]) == (24, 0, 0)
    assert found["evaluations_a_trial"] == [4]
    assert found["workers_on_the_machine_that_joined"] == 1
    assert "raylet" not in ran.stdout  # what Ray says is on stderr


def test_an_improvement_whose_worker_is_killed_decides_as_on_one_machine():
    ran = python("-c", "import json, measure_cluster as m; print(json.dumps(m.improved(2)))")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["code"] == 0, ran.stderr
    assert 3 <= found["killed_after"] < found["trainings"]
    assert (found["lost"], found["more"], found["twice"]) == (0, 0, 0)
    assert found["apart"] < 1e-5
    many, alone = found["adopted"]
    assert many == alone and many[0].startswith("learning_rate_up")


def test_without_a_cluster_it_is_said_what_starts_one(tmp_path):
    words = ["--config=configs/tabular/iris_mlp.py", f"--workdir={tmp_path / 's'}", "--trials=2"]
    ran = python("-m", "jdlopt.cli", "tune", *words, "--workers-on=ray:127.0.0.1:1")
    assert ran.returncode == 2, ran.stderr
    assert "no Ray cluster can be joined at 127.0.0.1:1" in ran.stderr
    assert "ray start --head" in ran.stderr and "Traceback" not in ran.stderr
