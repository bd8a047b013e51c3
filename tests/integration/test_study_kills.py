"""Studies whose processes are killed at random moments: no trial is lost, none counts twice."""

from __future__ import annotations

import random
import time

import pytest
import studies as seen

pytestmark = pytest.mark.slow

COUNT = 24
FLAGS = (f"--trials={COUNT}", "--width=2")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return seen.make(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def whole(studies, tmp_path_factory):
    """The record of a study that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "study"
    studies.tune(workdir, *FLAGS, "--workers=2")
    record = seen.check(workdir, f"sqlite:///{workdir / 'study.db'}", COUNT)
    states = [trial["state"] for trial in record["trials"]]
    assert states.count("done") > 2 and states.count("infeasible") > 2
    return record


def sql(workdir):
    return f"sqlite:///{workdir / 'study.db'}"


def begun(workdir):
    """Says whether the study is open: from then on there is something to lose."""
    return (workdir / "study.json").exists()


def live_a_while(process, workdir, rng, most):
    """Waits for a random moment behind the study's opening, or before it; or for the end."""
    if rng.random() < 0.8:
        seen.wait(lambda: begun(workdir) or process.poll() is not None, 120, "never opened")
    end = time.monotonic() + rng.uniform(0.0, most)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)


def assert_kept(before, now):
    """Checks that what was finished before is finished now, and the same."""
    for number, known in before.items():
        assert now[number] == known, f"trial {number} has changed"


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(0, ["all"] * 2), (1, ["coordinator"] * 2), (2, ["all", "coordinator"])],
)
def test_a_killed_study_ends_as_if_it_had_lived(studies, whole, tmp_path, seed, kills):
    workdir, rng, before = tmp_path / "study", random.Random(seed), {}
    for how in kills:
        process = studies.start(workdir, *FLAGS, "--workers=2")
        live_a_while(process, workdir, rng, 6.0)
        workers = seen.children(process.pid)
        if how == "all":
            seen.kill_tree(process)
        else:
            process.kill()
            process.communicate()
            seen.gone(workers)  # nobody told them: they notice
        if begun(workdir):
            now = seen.finished(sql(workdir))
            assert_kept(before, now)
            before = now
    studies.tune(workdir, *FLAGS, "--workers=2")
    record = seen.check(workdir, sql(workdir), COUNT)
    assert_kept(before, seen.finished(sql(workdir)))
    for mine, other in zip(record["trials"], whole["trials"], strict=True):
        for key in ("params", "values", "state", "steps"):
            assert mine[key] == other[key]


def test_killed_workers_are_replaced_and_their_trials_trained(studies, whole, tmp_path):
    workdir, rng = tmp_path / "study", random.Random(3)
    process = studies.start(workdir, *FLAGS, "--workers=2")
    killed = 0
    for most in (0.3, 1.5, 4.0):  # a fast machine trains all trials in four seconds
        live_a_while(process, workdir, rng, most)
        workers = seen.children(process.pid)
        if process.poll() is None and workers:
            seen.kill(rng.choice(workers))
            killed += 1
    studies.finish(process)
    assert killed
    record = seen.check(workdir, sql(workdir), COUNT)
    for mine, other in zip(record["trials"], whole["trials"], strict=True):
        assert mine["params"] == other["params"] and mine["values"] == other["values"]


def test_three_coordinators_that_are_killed_finish_one_study(studies, tmp_path):
    workdir, rng, before = tmp_path / "study", random.Random(4), {}
    flags = (f"--trials={COUNT}", "--width=2", "--workers=1")
    alive = [studies.start(workdir, *flags) for _ in range(3)]
    for turn in range(5):
        live_a_while(alive[0], workdir, rng, 4.0)
        victim = alive.pop(rng.randrange(3))
        workers = seen.children(victim.pid)
        if turn % 2:
            seen.kill_tree(victim)
        else:
            victim.kill()
            victim.communicate()
        seen.gone(workers)
        if begun(workdir):
            now = seen.finished(sql(workdir))
            assert_kept(before, now)
            before = now
        alive.append(studies.start(workdir, *flags))
    for process in alive:
        studies.finish(process)
    seen.check(workdir, sql(workdir), COUNT)
    assert_kept(before, seen.finished(sql(workdir)))
