"""The scripts of launch/slurm on a real SLURM of one node, started here with files of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "launch" / "slurm"
# Debian puts the daemons where a plain user's PATH does not look.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scancel",
    "scontrol",
    "sinfo",
    "squeue",
)
FOUND = {name: shutil.which(name, path=SEARCH) for name in PROGRAMS}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in FOUND.values(), reason="SLURM and munge are not installed (slurm-wlm, munge)"
    ),
]


def wait_for(what: str, happened: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


class Cluster(NamedTuple):
    """A running SLURM: its files, and the environment that its commands need."""

    folder: Path
    environment: dict[str, str]

    def command(self, *words: str, **environment: str) -> str:
        done = subprocess.run(
            [str(FOUND[words[0]]), *words[1:]],
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def submit(
        self, options: list[str], words: list[str], jdlopt: list[str], script: str = "run.sbatch"
    ) -> Job:
        name = "slurm-%A_%a.out" if script == "array.sbatch" else "slurm-%j.out"
        options = ["--parsable", f"--output={self.folder}/{name}", *options]
        number = self.command(
            "sbatch", *options, str(SCRIPTS / script), *words, JDLOPT=shlex.join(jdlopt)
        )
        return Job(self, number)

    def logs(self) -> str:
        names = ["slurmctld.log", "slurmd.log"]
        return "\n".join((self.folder / name).read_text(errors="replace")[-2000:] for name in names)


class Job(NamedTuple):
    cluster: Cluster
    number: str

    def field(self, name: str) -> str:
        shown = self.cluster.command("scontrol", "show", "--oneliner", "job", self.number)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)[name]

    def output(self) -> str:
        return (self.cluster.folder / f"slurm-{self.number}.out").read_text()

    def ended(self, seconds: float = 240) -> str:
        """Waits for the end and returns the state."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_for("the job's end", lambda: self.field("JobState") in over, seconds)
        return self.field("JobState")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has 108 characters
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o755)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o400)
    munge = folder / "munge" / "socket"
    controller_port, node_port = free_ports(2)
    host, user = socket.gethostname().partition(".")[0], os.geteuid()
    # cred_expire is also how long a requeued job waits; two minutes unless said otherwise.
    (folder / "slurm.conf").write_text(
        textwrap.dedent(f"""\
            ClusterName=test
            SlurmctldHost={host}(127.0.0.1)
            SlurmctldPort={controller_port}
            SlurmdPort={node_port}
            SlurmUser={user}
            SlurmdUser={user}
            AuthType=auth/munge
            AuthInfo=socket={munge},cred_expire=5
            StateSaveLocation={folder}/state
            SlurmdSpoolDir={folder}/spool
            SlurmctldPidFile={folder}/slurmctld.pid
            SlurmdPidFile={folder}/slurmd.pid
            SlurmctldLogFile={folder}/slurmctld.log
            SlurmdLogFile={folder}/slurmd.log
            ProctrackType=proctrack/pgid
            TaskPlugin=task/none
            MpiDefault=none
            SelectType=select/cons_tres
            SelectTypeParameters=CR_Core
            SchedulerType=sched/builtin
            SchedulerParameters=sched_interval=2
            SlurmdParameters=config_overrides
            ReturnToService=2
            KillWait=5
            NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
            PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
            """)
    )
    # Each task is one device of the run; the tests' own eight would make it sixteen.
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if "host_platform_device_count" not in flag]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), SEARCH]),
        "XLA_FLAGS": " ".join(kept),
        "JAX_PLATFORMS": "cpu",
    }
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}"]
        + [f"--{name}={folder}/munge/{name}" for name in ("pid-file", "log-file", "seed-file")],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", host],
    ]
    started: list[subprocess.Popen[bytes]] = []
    result = Cluster(folder, environment)
    try:
        for words in daemons:
            with (folder / f"{words[0]}.err").open("wb") as errors:
                started.append(
                    subprocess.Popen(
                        [str(FOUND[words[0]]), *words[1:]],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                    )
                )
            if words[0] == "munged":
                wait_for("munged", munge.exists, 15)
        wait_for(
            "the node", lambda: result.command("sinfo", "--noheader", "--format=%t") == "idle", 60
        )
        yield result
    finally:
        if len(started) == len(daemons):  # jobs that a failed test has left must not outlive SLURM
            result.command("scancel", f"--user={user}")
            with contextlib.suppress(AssertionError):
                wait_for("no jobs", lambda: not result.command("squeue", "--noheader"), 30)
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


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
    host = socket.gethostname().partition(".")[0]
    assert [task[1:] for task in told] == [["2", "0"], ["2", "1"]]
    assert told[0][0] == told[1][0]
    assert told[0][0].startswith(f"{host}:2")


def test_one_task_is_a_run_of_its_own(cluster, stand_in, tmp_path):
    job = cluster.submit([], [str(tmp_path), "0"], stand_in)
    assert job.ended() == "COMPLETED", job.output()
    assert (tmp_path / "task-0-0").read_text().split() == ["-", "-", "0"]


def test_failure_is_the_jobs_and_is_not_requeued(cluster, stand_in, tmp_path):
    job = cluster.submit(["--ntasks=2"], [str(tmp_path), "3"], stand_in)
    assert job.ended() == "FAILED", job.output()
    assert job.field("ExitCode") == "3:0"
    assert job.field("Restarts") == "0"


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
    flags = ["--trials=24", "--width=2", "--keep=0", "--no-report"]
    return ["tune", f"--config={config}", f"--workdir={tmp_path / 'study'}", *flags]


def trials(workdir: Path) -> list[dict[str, object]]:
    path = workdir / "study.json"
    return json.loads(path.read_text())["trials"] if path.exists() else []


def done(workdir: Path) -> list[object]:
    return [one["number"] for one in trials(workdir) if one["state"] == "done"]


def workers() -> list[int]:
    """The worker processes that steps of jobs have started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            words = (path.parent / "cmdline").read_bytes().split(b"\0")
            if b"SLURM_STEP_ID=" in path.read_bytes() and b"jdlopt.executor" in words[:3]:
                found.append(int(path.parent.name))
    return found


def test_the_workers_of_a_study_are_steps_and_one_that_is_killed_costs_no_trial(
    cluster, study, tmp_path
):
    job = cluster.submit(["--ntasks=2"], study, JDLOPT, "study.sbatch")
    wait_for("trials", lambda: len(done(tmp_path / "study")) >= 2, 180)
    os.kill(workers()[0], signal.SIGKILL)
    assert job.ended() == "COMPLETED", job.output()
    assert done(tmp_path / "study") == list(range(24))
    assert "with 2 workers" in job.output()
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
