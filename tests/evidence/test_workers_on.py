"""Comparisons whose workers a launcher starts: as steps of a SLURM job, which none runs here."""

from __future__ import annotations

import os

import pytest

from jdlopt.errors import UserError
from jdlopt.evidence.compare import compare
from jdlopt.evidence.options import ComparisonOptions
from jdlopt.executor.shared import MARK

pytestmark = pytest.mark.slow

CONFIG = {
    "data": {"source": "iris", "batch_size": 32},
    "model": {"name": "mlp", "features": ()},
    "loss": {"name": "cross_entropy"},
    "optim": {"name": "sgd", "learning_rate": 0.01},
    "train": {"steps": 20, "eval_every": 10},
}
SRUN = """#!/bin/sh
echo "$*" >> {log}
while [ "${{1#--}}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """A stand-in for `srun`, and the file in which it writes how it was called."""
    log, srun = tmp_path / "steps", tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(log=log))
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    return log


def test_a_comparison_trains_on_steps_of_a_job_and_a_folder_that_is_not_shared_is_told(
    steps, tmp_path
):
    other = {**CONFIG, "optim": {"name": "sgd", "learning_rate": 0.1}}
    options = ComparisonOptions(seeds=2, fixed=True, workers_on="slurm,cpus=1")
    record = compare(CONFIG, other, tmp_path / "compared", options)
    assert record["seconds"]["training"] > 0
    lines = steps.read_text().splitlines()
    assert len(lines) == 1 and "--exact" in lines[0]

    # a worker whose machine has a folder of its own by that name
    srun = tmp_path / "bin" / "srun"
    srun.write_text(srun.read_text().replace("exec", f"echo no > {tmp_path}/again/{MARK}; exec"))
    with pytest.raises(UserError, match="again is another folder than on the coordinator"):
        compare(CONFIG, other, tmp_path / "again", options)
