"""The scripts of launch/slurm on a real SLURM of one node, started here with files of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from measure_cluster import trainings, words_of_improve  # noqa: E402
from slurm_here import (  # noqa: E402
    FOUND,
    HOST,
    Cluster,
    kill_node,
    slurm,
    so_far,
    wait_for,
    workers,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in FOUND.values(), reason="SLURM and munge are not installed (slurm-wlm, munge)"
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm([HOST]) as made:
        yield made


# --- with a stand-in for jdlopt: what SLURM and the script do, whatever the speed of training -----

STAND_IN = """
import os, pathlib, signal, sys, time

def save(number, frame):
    sys.exit(130)

signal.signal(signal.SIGTERM, save)
folder, wish = pathlib.Path(sys.argv[1]), sys.argv[2]
names = ("JDLOPT_COORDINATOR", "JDLOPT_NUM_PROCESSES", "JDLOPT_PROCESS_ID")
known = [os.environ.get(name, "-") for name in names]
restart = os.environ.get("SLURM_RESTART_COUNT", "0")
(folder / f"task-{os.environ['SLURM_PROCID']}-{restart}").write_text(" ".join(known))
if wish == "wait" and restart == "0":
    time.sleep(600)
sys.exit(int(wish) if wish.isdigit() else 0)
"""


@pytest.fixture
def stand_in(cluster, tmp_path) -> list[str]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, str(script)]


def test_two_tasks_know_each_other(cluster, stand_in, tmp_path):
    job = cluster.submit(["--ntasks=2"], [str(tmp_path), "0"], stand_in)
    assert job.ended() == "COMPLETED", job.output()
    told = [(tmp_path / f"task-{index}-0").read_text().split() for index in range(2)]
    assert [task[1:] for task in told] == [["2", "0"], ["2", "1"]]
    assert told[0][0] == told[1][0]
    assert told[0][0].startswith(f"{HOST}:2")


def test_one_task_is_a_run_of_its_own(cluster, stand_in, tmp_path):
    job = cluster.submit([], [str(tmp_path), "0"], stand_in)
    assert job.ended() == "COMPLETED", job.output()
    assert (tmp_path / "task-0-0").read_text().split() == ["-", "-", "0"]


def test_failure_is_the_jobs_and_is_not_requeued(cluster, stand_in, tmp_path):
    job = cluster.submit(["--ntasks=2"], [str(tmp_path), "3"], stand_in)
    assert job.ended() == "FAILED", job.output()
    assert job.field("ExitCode") == "3:0"
    assert job.field("Restarts") == "0"


def test_a_job_that_hung_is_requeued_so_many_times(cluster, stand_in, tmp_path):
    job = cluster.submit(["--ntasks=2"], [str(tmp_path), "124"], stand_in)
    wait_for("the job to be requeued", lambda: job.field("Restarts") == "1")
    cluster.command("scancel", job.number)
    options = ["--ntasks=2", "--export=ALL,JDLOPT_RESTARTS=0"]
    other = cluster.submit(options, [str(tmp_path), "124"], stand_in)
    assert other.ended() == "FAILED" and other.field("ExitCode") == "124:0"
    assert "not requeued" in other.output()


def test_time_limit_saves_requeues_and_goes_on(cluster, stand_in, tmp_path):
    # SLURM looks at limits every half minute, so this comes 30 to 60 seconds after the start.
    options = ["--ntasks=2", "--time=2", "--signal=B:USR1@60"]
    job = cluster.submit(options, [str(tmp_path), "wait"], stand_in)
    assert job.ended() == "COMPLETED", job.output()
    assert job.field("Restarts") == "1"
    assert (tmp_path / "task-0-1").exists()
    assert (tmp_path / "task-1-1").exists()
    assert "saving before the time limit" in job.output()


def test_cancelled_job_stays_cancelled(cluster, stand_in, tmp_path):
    job = cluster.submit(["--ntasks=2"], [str(tmp_path), "wait"], stand_in)
    wait_for("both tasks", lambda: len(list(tmp_path.glob("task-*"))) == 2)
    cluster.command("scancel", job.number)
    assert job.ended() == "CANCELLED"
    assert job.field("Restarts") == "0"


def test_requeue_can_be_declined(cluster, stand_in, tmp_path):
    options = ["--ntasks=2", "--export=ALL,JDLOPT_REQUEUE=0"]
    job = cluster.submit(options, [str(tmp_path), "wait"], stand_in)
    wait_for("both tasks", lambda: len(list(tmp_path.glob("task-*"))) == 2)
    cluster.command("scancel", "--batch", "--signal=USR1", job.number)
    assert job.ended() == "FAILED"
    assert job.field("ExitCode") == "130:0"


# --- with jdlopt itself ---------------------------------------------------------------------------

CONFIG = """
def get_config():
    return {
        "seed": 5,
        "data": {"source": "digits", "batch_size": 64},
        "model": {"name": "mlp", "features": (32,), "dropout_rate": 0.1},
        "loss": {"name": "cross_entropy"},
        "optim": {"name": "adam", "learning_rate": 1e-3},
        "train": {
            "steps": 400,
            "eval_every": 50,
            "log_every": 5,
            "checkpoint_every": 40,
            "evaluate_test": False,
            "steps_per_dispatch": 5,
        },
    }
"""
JDLOPT = [sys.executable, "-m", "jdlopt.cli"]


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "digits.py"
    path.write_text(CONFIG)
    return path


def test_run_saves_is_requeued_and_ends_as_if_nothing_had_been(cluster, config, tmp_path):
    train = ["train", f"--config={config}"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    job = cluster.submit(["--ntasks=2"], [*train, f"--workdir={straight}"], JDLOPT)
    assert job.ended() == "COMPLETED", job.output()
    record = json.loads((straight / "result.json").read_text())
    assert record["status"] == "done"
    assert len(record["devices"]) == 2

    job = cluster.submit(["--ntasks=2"], [*train, f"--workdir={stopped}"], JDLOPT)
    wait_for("a checkpoint", lambda: list(stopped.glob("checkpoints/*")), 180)
    cluster.command("scancel", "--batch", "--signal=USR1", job.number)  # as the time limit would
    assert job.ended() == "COMPLETED", job.output()
    assert job.field("Restarts") == "1", job.output()
    assert "interrupted at step" in job.output()
    lines = [(workdir / "metrics.jsonl").read_text() for workdir in (straight, stopped)]
    assert lines[0] == lines[1]


def test_cancelled_run_has_saved(cluster, config, tmp_path):
    workdir = tmp_path / "run"
    words = ["train", f"--config={config}", f"--workdir={workdir}", "--config.train.steps=100000"]
    job = cluster.submit(["--ntasks=2"], words, JDLOPT)
    wait_for("a checkpoint", lambda: list(workdir.glob("checkpoints/*")), 180)
    cluster.command("scancel", job.number)
    assert job.ended() == "CANCELLED"
    record = json.loads((workdir / "result.json").read_text())
    assert record["status"] == "interrupted"


# --- studies --------------------------------------------------------------------------------------

STUDY = """
from jdlopt.study.space import log_uniform


def get_config():
    return {
        "seed": 5,
        "data": {"source": "iris", "batch_size": 32},
        "model": {"name": "mlp", "features": ()},
        "loss": {"name": "cross_entropy"},
        "optim": {"name": "sgd", "learning_rate": 0.01},
        "train": {"steps": 3000, "eval_every": 1000, "evaluate_test": False},
    }


def get_space():
    return {"optim.learning_rate": log_uniform(1e-3, 1e-1)}
"""


@pytest.fixture
def study(tmp_path) -> list[str]:
    config = tmp_path / "iris.py"
    config.write_text(STUDY)
    flags = ["--trials=24", "--width=1", "--keep=0", "--no-report"]
    return ["tune", f"--config={config}", f"--workdir={tmp_path / 'study'}", *flags]


def done(workdir: Path) -> list[int]:
    """The numbers of the trials that have ended well, as the study's record says at its end."""
    trials = json.loads((workdir / "study.json").read_text())["trials"]
    return [one["number"] for one in trials if one["state"] == "done"]


def test_the_workers_of_a_study_are_on_all_nodes_and_those_killed_cost_no_trial(study, tmp_path):
    workdir = tmp_path / "study"
    with slurm(["n1", "n2"]) as cluster:
        options = ["--nodes=2", "--ntasks-per-node=1"]
        job = cluster.submit(options, study, JDLOPT, "study.sbatch")
        wait_for("trials", lambda: so_far(workdir) >= 2, 180)
        assert sorted(workers().values()) == ["n1", "n2"]
        os.kill(next(pid for pid, node in workers().items() if node == "n1"), signal.SIGKILL)
        wait_for("more trials", lambda: so_far(workdir) >= 4, 60)
        kill_node(cluster, "n2")
        assert so_far(workdir) < 24
        assert job.ended() == "COMPLETED", job.output()
        assert done(workdir) == list(range(24))
        assert "with 2 workers" in job.output()
        assert not workers()


def test_an_improvement_goes_on_without_a_worker_that_was_killed(cluster, tmp_path):
    workdir = tmp_path / "better"
    words = words_of_improve(tmp_path, workdir)
    job = cluster.submit(["--ntasks=2"], words, JDLOPT, "study.sbatch")
    wait_for("trainings", lambda: len(trainings(workdir)) >= 3, 180)
    os.kill(next(iter(workers())), signal.SIGKILL)
    killed_after = len(trainings(workdir))
    assert job.ended() == "COMPLETED", job.output()
    record = json.loads((workdir / "improve.json").read_text())
    assert record["steps"][0]["technique"].startswith("learning_rate_up")
    assert record["why"].endswith("was reached") and len(record["test"]["improved"]) == 2
    found = trainings(workdir)
    assert killed_after < len(found) and all(len(each) == 1 for each in found.values())
    assert not workers()


def test_the_tasks_of_an_array_share_a_study(cluster, study, tmp_path):
    job = cluster.submit(["--array=0-1"], [*study, "--workers=1"], JDLOPT, "array.sbatch")
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def states() -> list[str]:
        shown = cluster.command("scontrol", "show", "--oneliner", "job", job.number)
        return re.findall(r"JobState=(\w+)", shown)

    wait_for("the array's end", lambda: all(state in over for state in states()), 240)
    outputs = [path.read_text() for path in cluster.folder.glob(f"slurm-{job.number}_*.out")]
    assert set(states()) == {"COMPLETED"}, outputs
    assert done(tmp_path / "study") == list(range(24))
    assert len(outputs) == 2
