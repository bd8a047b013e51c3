"""Where workers run: what can be asked for, and what a machine must see."""

from __future__ import annotations

import importlib.util

import pytest

from jdlopt.errors import UserError
from jdlopt.evidence.options import ComparisonOptions
from jdlopt.executor import on_slurm
from jdlopt.executor.place import Place
from jdlopt.executor.shared import MARK, check_seen, to_be_seen
from jdlopt.executor.starting import start_processes
from jdlopt.study.options import Options


@pytest.mark.parametrize("kind", [Options, ComparisonOptions])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rya", "'rya' is unknown. Did you mean 'ray'"),
        ("ray:host", "'host' is no address"),
        ("slurm:host:1", "'host:1' is no address"),
        ("ray,cpu=2", "'cpu' is unknown. Did you mean 'cpus'"),
        ("ray,cpus=0", "a whole number from 1"),
        ("ray,gpus=-1", "a whole number from 0"),
        ("here,cpus=2", "share what it has"),
        ("slurm,tpus=4", "not tpus"),
    ],
)
def test_a_place_that_is_none_is_told_before_anything_starts(kind, text, says):
    with pytest.raises(UserError, match=r"^--workers-on: ") as told:
        kind(workers_on=text).check()
    assert says in str(told.value)


def test_what_a_worker_takes_decides_whether_it_has_a_core_of_its_own():
    assert Place.read("ray").one_core and Place.read("slurm,cpus=1").one_core
    assert not Place.read("ray,cpus=2").one_core and not Place.read("ray,gpus=1").one_core


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs ray.*pip install 'jdlopt\[ray\]'"):
        start_processes("no_module", None, "ray")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=r"is no SLURM job.*study\.sbatch"):
        start_processes("no_module", None, "slurm")


def test_a_step_of_a_job_takes_what_was_asked_for(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    words = on_slurm.launcher(Place.read("slurm,gpus=2"), {"SLURM_JOB_ID": "1"})
    assert words[0] == "/usr/bin/srun" and "--gpus-per-task=2" in words
    job = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "4"}
    assert "--cpus-per-task=4" in on_slurm.launcher(Place.read("slurm"), job)


def test_a_machine_sees_what_its_coordinator_sees_or_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "study"
    workdir.mkdir()
    told = to_be_seen(workdir)
    assert told == to_be_seen(workdir)  # another coordinator of the same study
    check_seen(told)
    check_seen({})
    (workdir / MARK).write_text("another machine's")
    with pytest.raises(UserError, match=f"{workdir} is another folder than on the coordinator"):
        check_seen(told)
    (workdir / MARK).unlink()
    with pytest.raises(UserError, match=f"{workdir} can't be read: No such file"):
        check_seen(told)
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match=f"the folder {tmp_path}, where jdlopt was started"):
        check_seen(told)
