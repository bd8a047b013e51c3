"""The launchers: what their tools say of them here, and what they do with exit codes."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
JOBSETS = ("gpu.yaml", "tpu.yaml")


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(LAUNCH / "check.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def jobset(name: str) -> dict:
    return yaml.safe_load((LAUNCH / "kubernetes" / name).read_text())


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def test_no_tool_that_is_here_finds_anything_wrong():
    said = check()
    assert said.returncode == 0, said.stdout + said.stderr
    lines = said.stdout.splitlines()
    names = {one.name for one in LAUNCH.rglob("*") if one.suffix in (".sh", ".sbatch", ".yaml")}
    assert {line.partition(":")[0] for line in lines} == names  # none is passed over
    assert "queued.sh: bash: ok" in lines
    if installed("kubernetes_validate"):
        assert {f"{name}: kubernetes-validate: ok" for name in JOBSETS} <= set(lines)
    if shutil.which("shellcheck"):
        assert "run.sbatch: shellcheck: ok" in lines


@pytest.mark.parametrize("name", JOBSETS)
def test_a_jobset_restarts_what_a_restart_mends_alone(name):
    spec = jobset(name)["spec"]
    [job] = spec["replicatedJobs"]
    [rule] = job["template"]["spec"]["podFailurePolicy"]["rules"]
    # defect, wrong input, diverged: a JobSet that begins again comes to the same
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2, 3])
    first, other = spec["failurePolicy"]["rules"]
    assert first["action"] == "FailJobSet" and first["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert other["action"] == "RestartJobSet"
    assert job["template"]["spec"]["backoffLimit"] == 0  # one process less is no run


def test_a_jobset_says_how_many_processes_there_are():
    [job] = jobset("gpu.yaml")["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    known = {one["name"]: one.get("value") for one in container["env"]}
    assert int(known["JDLOPT_NUM_PROCESSES"]) == spec["completions"] == spec["parallelism"]
    assert known["JDLOPT_COORDINATOR"].startswith(f"$(JOBSET)-{job['name']}-0-0.$(JOBSET):")


def test_what_is_wrong_is_said_and_ends_with_2(tmp_path):
    broken, other = tmp_path / "broken.sh", tmp_path / "other.yaml"
    broken.write_text("if true; then\n")
    other.write_text("a: 1\n")
    said = check(broken, other, tmp_path / "missing.sh")
    assert said.returncode == 2
    assert "broken.sh: bash: " in said.stdout and "syntax error" in said.stdout
    assert "none of the kinds" in said.stdout and "there is no such file" in said.stderr


@pytest.mark.skipif(not installed("kubernetes_validate"), reason="needs kubernetes-validate")
def test_a_misspelt_field_of_a_pod_is_found(tmp_path):
    text = (LAUNCH / "kubernetes" / "gpu.yaml").read_text()
    file = tmp_path / "gpu.yaml"
    file.write_text(text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    said = check(file)
    assert said.returncode == 2 and "terminationGraceSeconds" in said.stdout


def test_queued_and_xpk_explain_themselves_without_arguments():
    for name in ("queued.sh", "xpk.sh"):
        said = subprocess.run(["bash", LAUNCH / "tpu" / name], capture_output=True, text=True)
        assert said.returncode == 2 and f"launch/tpu/{name}" in said.stderr
