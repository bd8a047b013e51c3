"""A run that is trained for more steps than it began with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jdlopt.errors import WorkdirError
from jdlopt.train import checkpoint, log
from jdlopt.train.experiment import Experiment


class LongerRunWarning(UserWarning):
    """A run is trained for more steps than it began with."""


def is_longer(experiment: Experiment, place: Path, finished: Mapping[str, Any] | None) -> bool:
    """Says whether a run is to be trained for more steps than its directory's config asks for.

    Raises:
      WorkdirError: it is to be trained for fewer than it has made.
    """
    saved = log.saved_config(place / log.CONFIG).get("train", {})
    now = experiment.config.to_dict()["train"]
    if all(saved.get(key) == now[key] for key in ("epochs", "steps")):
        return False
    total = experiment.total_steps
    made = max([*checkpoint.steps(place / log.CHECKPOINTS), int((finished or {}).get("steps", 0))],
               default=0)  # fmt: skip
    if total < made:
        raise WorkdirError(
            f"--workdir: the run in {place} has made {made:,} steps, and this config's "
            f"train.epochs or train.steps asks for {total:,}. Ask for more, or choose another "
            "--workdir."
        )
    if total == made:
        return False
    schedule = experiment.config.optim.schedule.name
    about = "" if schedule == "constant" else (
        f" Its schedule {schedule!r} is that of {total:,} steps from here on: the learning rate "
        f"goes on where that schedule is at step {made:,}, and not where the shorter one was."
    )  # fmt: skip
    if jax.process_index() == 0:
        warnings.warn(
            f"the run in {place} goes on from step {made:,} to {total:,}.{about}",
            LongerRunWarning,
            stacklevel=4,
        )
    return True
