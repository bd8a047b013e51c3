"""A real SLURM on this machine, with files of its own: for tests, and for what counts losses.

Its nodes have names of their own, so that one can be killed with all that runs on it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
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
HOST = socket.gethostname().partition(".")[0]
FOUND = {name: shutil.which(name, path=SEARCH) for name in PROGRAMS}


def wait_for(what: str, happened: Callable[[], object], seconds: float = 90) -> None:
    """Waits until something has happened, for so long."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


class Cluster(NamedTuple):
    """A running SLURM: its files, the environment of its commands, and the daemons of its nodes."""

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]]

    def command(self, *words: str, **environment: str) -> str:
        """Returns what one of SLURM's commands says."""
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
        """Submits a script of `launch/slurm`, with options of sbatch's and words of jdlopt's."""
        name = "slurm-%A_%a.out" if script == "array.sbatch" else "slurm-%j.out"
        options = ["--parsable", f"--output={self.folder}/{name}", *options]
        number = self.command(
            "sbatch", *options, str(SCRIPTS / script), *words, JDLOPT=shlex.join(jdlopt)
        )
        return Job(self, number)

    def logs(self) -> str:
        """Returns the end of what the daemons have logged."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in paths)


class Job(NamedTuple):
    """A job that was submitted."""

    cluster: Cluster
    number: str

    def field(self, name: str) -> str:
        """Returns what SLURM knows of it."""
        shown = self.cluster.command("scontrol", "show", "--oneliner", "job", self.number)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)[name]

    def output(self) -> str:
        """Returns what it has printed."""
        return (self.cluster.folder / f"slurm-{self.number}.out").read_text()

    def ended(self, seconds: float = 240) -> str:
        """Waits for the end and returns the state."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_for("the job's end", lambda: self.field("JobState") in over, seconds)
        return self.field("JobState")


def free_ports(count: int) -> list[int]:
    """Returns ports that nothing listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


@contextlib.contextmanager
def slurm(nodes: list[str]) -> Iterator[Cluster]:
    """Starts a SLURM whose nodes, by their names, are all on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has 108 characters
    for name in ("state", "munge", *(f"spool.{node}" for node in nodes)):
        (folder / name).mkdir(mode=0o755)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o400)
    munge = folder / "munge" / "socket"
    controller_port, *node_ports = free_ports(1 + len(nodes))
    user = os.geteuid()
    # cred_expire is also how long a requeued job waits; two minutes unless said otherwise.
    settings = f"""\
        ClusterName=test
        SlurmctldHost={HOST}(127.0.0.1)
        SlurmctldPort={controller_port}
        SlurmUser={user}
        SlurmdUser={user}
        AuthType=auth/munge
        AuthInfo=socket={munge},cred_expire=5
        StateSaveLocation={folder}/state
        SlurmdSpoolDir={folder}/spool.%n
        SlurmctldPidFile={folder}/slurmctld.pid
        SlurmdPidFile={folder}/slurmd.%n.pid
        SlurmctldLogFile={folder}/slurmctld.log
        SlurmdLogFile={folder}/slurmd.%n.log
        SlurmdTimeout=10
        ProctrackType=proctrack/pgid
        TaskPlugin=task/none
        MpiDefault=none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core_Memory
        SchedulerType=sched/builtin
        SchedulerParameters=sched_interval=2
        SlurmdParameters=config_overrides
        ReturnToService=2
        KillWait=5
        """
    lines = [
        f"NodeName={node} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={port} CPUs=4 "
        "RealMemory=1000 State=UNKNOWN"
        for node, port in zip(nodes, node_ports, strict=True)
    ]
    lines.append(f"PartitionName=test Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE")
    (folder / "slurm.conf").write_text(textwrap.dedent(settings) + "\n".join(lines) + "\n")
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
        *(["slurmd", "-D", "-N", node] for node in nodes),
    ]
    started: list[subprocess.Popen[bytes]] = []
    result = Cluster(folder, environment, {})
    try:
        for words in daemons:
            with (folder / f"{words[0]}.err").open("ab") as errors:
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
        result.daemons.update(zip(nodes, started[2:]))
        idle = ["idle"] * len(nodes)
        show = ("sinfo", "--noheader", "--Node", "--format=%t")
        wait_for("the nodes", lambda: result.command(*show).split() == idle, 60)
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


def so_far(workdir: Path) -> int:
    """How many trials have ended well, as the storage says at any moment."""
    with (
        contextlib.suppress(sqlite3.OperationalError),  # it is not there yet, or being made
        contextlib.closing(sqlite3.connect(f"file:{workdir}/study.db?mode=ro", uri=True)) as opened,
    ):
        return opened.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0]
    return 0


def workers() -> dict[int, str]:
    """The worker processes that steps of jobs have started, and their nodes."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            words = (path.parent / "cmdline").read_bytes().split(b"\0")
            node = re.search(rb"\0SLURMD_NODENAME=(\w+)", path.read_bytes())
            if node and b"jdlopt.executor" in words[:3]:
                found[int(path.parent.name)] = node[1].decode()
    return found


def kill_node(cluster: Cluster, name: str) -> None:
    """Kills a node's daemon, and all that it has started."""
    cluster.daemons[name].kill()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            words = (path.parent / "cmdline").read_bytes()
            of_node = f"SLURMD_NODENAME={name}\0".encode() in path.read_bytes()
            stepd = b"slurmstepd" in words and str(cluster.folder).encode() in path.read_bytes()
            if of_node or (stepd and f".{name}".encode() in path.read_bytes() + words):
                os.kill(int(path.parent.name), signal.SIGKILL)
