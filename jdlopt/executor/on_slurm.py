"""Workers in a SLURM allocation: each is a step of the job, started by `srun` on one of its nodes.

SLURM chooses the node. A step that finds no room waits for some, as where a node is down.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping

from jdlopt.errors import UserError
from jdlopt.executor.place import Place


def launcher(place: Place, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the words before a worker's command that make it a step of this job.

    Raises:
      UserError: this is no job, or there is no `srun`.
    """
    srun = shutil.which("srun")
    if "SLURM_JOB_ID" not in environment or srun is None:
        raise UserError(
            "--workers-on=slurm: this is no SLURM job"
            + (", and there is no srun" if srun is None else "")
            + ". Start it in one: sbatch --nodes=N launch/slurm/study.sbatch tune ..."
        )
    words = [srun, "--nodes=1", "--ntasks=1", "--exact", "--quiet", "--unbuffered"]
    # none of the job's memory is put aside for a step: all of them share what the job has
    words += ["--mem=0", f"--cpus-per-task={_cpus(place, environment)}"]
    return words + ([f"--gpus-per-task={place.gpus}"] if place.gpus else [])


def _cpus(place: Place, environment: Mapping[str, str]) -> int:
    return place.cpus or int(environment.get("SLURM_CPUS_PER_TASK", "1"))


def room(place: Place, environment: Mapping[str, str] = os.environ) -> int:
    """Returns how many workers a job has room for: its tasks, else what its processors are for.

    Example:
      >>> room(Place("slurm"), {"SLURM_NTASKS": "6"})
      6
      >>> room(Place("slurm", cpus=2), {"SLURM_JOB_CPUS_PER_NODE": "8(x2),4"})
      10
      >>> job = {"SLURM_JOB_CPUS_PER_NODE": "64(x2)", "SLURM_GPUS_ON_NODE": "8"}
      >>> room(Place("slurm", gpus=1), job)
      16
    """
    if environment.get("SLURM_NTASKS"):
        return int(environment["SLURM_NTASKS"])
    found, cpus = 0, _cpus(place, environment)
    gpus = environment.get("SLURM_GPUS_ON_NODE")
    for count, _, nodes in re.findall(
        r"(\d+)(\(x(\d+)\))?", environment.get("SLURM_JOB_CPUS_PER_NODE", "1")
    ):
        own = int(count) // cpus
        if place.gpus and gpus:
            own = min(own, int(gpus) // place.gpus)
        found += own * int(nodes or 1)
    return max(1, found)
