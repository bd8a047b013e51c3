"""Studies in storages that several coordinators share, and what optuna-dashboard shows of one."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest
import studies as seen

pytestmark = pytest.mark.slow

COUNT = 16
FLAGS = (f"--trials={COUNT}", "--width=2", "--workers=1")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return seen.make(tmp_path_factory.mktemp("studies"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql():
    """The URL of a PostgreSQL server that runs as long as the tests do."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("PostgreSQL is not installed: no initdb, nor /usr/lib/postgresql/*/bin")
    bin_ = found[-1].parent if found else Path(str(on_path)).parent
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are for their owner alone
    before: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        names = {user.pw_name for user in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        before = ["runuser", "-u", user, "--"]
        shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    environment = {**os.environ, "LC_ALL": "C"}

    def do(*words: str) -> None:
        done = subprocess.run(
            [*before, str(bin_ / words[0]), *words[1:]],
            env=environment, cwd=folder, text=True, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    do("initdb", f"--pgdata={data}", "--username=jdlopt", "--auth=trust", "--encoding=UTF8")
    flags = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
    log = folder / "log"
    do("pg_ctl", "start", "-w", f"--pgdata={data}", f"--log={log}", f"--options={flags}")
    try:
        yield f"postgresql+psycopg://jdlopt@127.0.0.1:{port}/postgres"
    finally:
        do("pg_ctl", "stop", "-w", f"--pgdata={data}", "--mode=immediate")
        shutil.rmtree(folder)


def test_three_coordinators_share_a_postgresql_and_two_are_killed(studies, postgresql, tmp_path):
    workdir, rng, before = tmp_path / "study", random.Random(5), {}
    flags = (*FLAGS, f"--storage={postgresql}")
    alive = [studies.start(workdir, *flags) for _ in range(3)]
    for _ in range(2):
        victim = alive.pop(rng.randrange(3))
        seen.wait(lambda: (workdir / "study.json").exists(), 120, "never opened")
        time.sleep(rng.uniform(0.5, 5.0))
        workers = seen.children(victim.pid)
        victim.kill()
        victim.communicate()
        seen.gone(workers)
        now = seen.finished(postgresql)
        assert {number: now[number] for number in before} == before
        before = now
        alive.append(studies.start(workdir, *flags))
    for process in alive:
        studies.finish(process)
    seen.check(workdir, postgresql, COUNT)
    now = seen.finished(postgresql)
    assert {number: now[number] for number in before} == before
    assert not (workdir / "study.db").exists()


# --- a journal file -------------------------------------------------------------------------------


def test_two_coordinators_share_a_journal_in_their_directory(studies, tmp_path):
    workdir = tmp_path / "study"
    workdir.mkdir()
    url = f"journal:{workdir / 'study.journal'}"
    both = [studies.start(workdir, *FLAGS, f"--storage={url}") for _ in range(2)]
    for process in both:
        studies.finish(process)
    seen.check(workdir, url, COUNT)
    owners = {trial.user_attrs["owner"] for trial in seen.trials_of(url)}
    assert 1 <= len(owners) <= 2


def test_coordinators_share_a_grid_and_every_point_is_trained_once(studies, tmp_path):
    space = tmp_path / "space.py"
    space.write_text(
        "from jdlopt.study.space import choice\n"
        "def get_space():\n"
        "    return {'optim.learning_rate': choice(0.01, 0.02, 0.03, 0.04),\n"
        "            'model.dropout_rate': choice(0.0, 0.1, 0.2)}\n"
    )
    workdir = tmp_path / "study"
    flags = (f"--space={space}", "--sampler=grid", "--width=2", "--workers=1")
    both = [studies.start(workdir, *flags) for _ in range(2)]
    for process in both:
        studies.finish(process)
    record = seen.check(workdir, f"sqlite:///{workdir / 'study.db'}", 12)
    assert all(trial["state"] == "done" for trial in record["trials"])


# --- PID namespaces -------------------------------------------------------------------------------

OWNER = """
import json, os, pathlib, sys
from jdlopt.study import database, storage
database.quiet()
folder = pathlib.Path(sys.argv[1])
locks = folder if sys.argv[2] == "locks" else None
with database.opened(None, folder) as found:
    one = storage.StudyStorage(found, "study", ["maximize"], {}, locks)
    claimed = one.claim()
    if claimed == 0 and one.alone():
        one.reserve(0)
    state = {"alone": one.alone(), "claimed": claimed, "slot": one.slot, "pid": os.getpid()}
    print(json.dumps(state), flush=True)
    sys.stdin.read()
"""
"""A coordinator that takes a trial, says what it sees of others, and stays."""
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def namespace() -> tuple[str, ...]:
    """The words that start a process in a PID namespace of its own."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("PID namespaces are not permitted here")
    return NAMESPACE


@pytest.mark.parametrize("how", ["locks", "beats"])
def test_coordinators_in_pid_namespaces_of_one_host_see_each_other(how, namespace, tmp_path):
    def owner() -> tuple[subprocess.Popen[str], dict[str, object]]:
        process = subprocess.Popen(
            [*namespace, sys.executable, "-c", OWNER, str(tmp_path), how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    first, found = owner()
    assert found == {"alone": True, "claimed": 0, "slot": 0, "pid": 1}
    second, found = owner()  # the same host, and the same number of the process
    assert found == {"alone": False, "claimed": 0, "slot": 1, "pid": 1}
    first.kill()
    first.communicate()
    third, found = owner()
    # without a lock, one that was killed in another namespace is dead only after a silence
    claimed = 1 if how == "locks" else 0
    assert found == {"alone": False, "claimed": claimed, "slot": 2 - 2 * claimed, "pid": 1}
    for process in (second, third):
        process.communicate("")


def test_a_study_of_two_pid_namespaces_trains_every_trial_once(studies, namespace, tmp_path):
    workdir = tmp_path / "study"
    both = [studies.start(workdir, *FLAGS, before=namespace) for _ in range(2)]
    for process in both:
        studies.finish(process)
    seen.check(workdir, f"sqlite:///{workdir / 'study.db'}", COUNT)


# --- optuna-dashboard -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(studies, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "study"
    studies.tune(workdir, *FLAGS)
    return workdir


@contextlib.contextmanager
def dashboard(url: str):
    """Serves a storage on loopback; yields a function that reads a path of it."""
    port = free_port()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("optuna-dashboard")), url,
         "--host=127.0.0.1", f"--port={port}", "--server=wsgiref"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def read(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.read().decode()

    def up() -> bool:
        assert process.poll() is None, "optuna-dashboard ended"
        with contextlib.suppress(urllib.error.URLError):
            return bool(read("/dashboard/"))
        return False

    try:
        seen.wait(up, 60, "optuna-dashboard does not answer")
        yield read
    finally:
        process.kill()
        process.wait()


def test_optuna_dashboard_opens_a_study(finished):
    record = json.loads((finished / "study.json").read_text())
    with dashboard(f"sqlite:///{finished / 'study.db'}") as read:
        assert "<title>Optuna Dashboard" in read("/dashboard/")
        (study,) = json.loads(read("/api/studies"))["study_summaries"]
        assert study["study_name"] == "study"
        number = study["study_id"]
        detail = json.loads(read(f"/api/studies/{number}?after=0"))
    assert len(detail["trials"]) == COUNT
    states = {trial["number"]: trial["state"] for trial in detail["trials"]}
    told = {"done": "Complete", "infeasible": "Fail", "pruned": "Pruned"}
    assert states == {trial["number"]: told[trial["state"]] for trial in record["trials"]}
    values = [t["values"][0] for t in detail["trials"] if t["state"] == "Complete"]
    assert max(values) == record["trials"][record["best"]]["values"][0]
    assert optuna.study.StudyDirection.MAXIMIZE.name.lower() == detail["directions"][0]
