"""The model that a file is made of: a finished run's, or that of several as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jdlopt import config as configs
from jdlopt.errors import UserError, WorkdirError
from jdlopt.export.rounded import rounded
from jdlopt.train import ensemble, serve
from jdlopt.train.ensemble import Member
from jdlopt.train.experiment import Experiment
from jdlopt.train.loggers.logger import FINAL
from jdlopt.train.result import read_result
from jdlopt.train.state import Weights


class Opened(NamedTuple):
    """A model to export.

    Attributes:
      workdirs: of the run, or of those that predict as one.
      experiment: which predicts.
      weights: with which it does.
      steps: of the checkpoint of each run.
    """

    workdirs: tuple[Path, ...]
    experiment: Experiment
    weights: Weights
    steps: tuple[int, ...]


def open_model(
    workdirs: Sequence[str | Path],
    checkpoint: str = "best",
    allow_code: configs.Allowed = False,
    *,
    in_float32: bool = False,
    in_integers: bool = False,
) -> Opened:
    """Opens the model of a run, or the mean of several.

    Args:
      workdirs: the directories.
      checkpoint: ``best`` or ``newest``.
      allow_code: which dotted paths in their records may be imported.
      in_float32: compute in it whatever the runs computed in, for runtimes without others.
      in_integers: leave the rounding of quantized runs to what computes in integers.

    Raises:
      UserError: one holds no finished run, or they predict other things or read other inputs.
    """
    places = tuple(Path(one) for one in workdirs)
    for place in places:
        _refuse_unfinished(place, allow_code)
    members = [ensemble.opened(place, checkpoint, 0, allow_code) for place in places]
    if in_float32:
        members = [one._replace(experiment=computing_in_float32(one.experiment)) for one in members]
    if in_integers:
        members = [Member(one.workdir, *rounded(one.experiment, one.weights), one.step)
                   for one in members]  # fmt: skip
    steps = tuple(one.step for one in members)
    if len(members) == 1:
        return Opened(places, members[0].experiment, members[0].weights, steps)
    spec = ensemble.decided(members, None, None)
    readers = ensemble.first_alike(members)
    if any(readers):
        other = places[next(index for index, reader in enumerate(readers) if reader)]
        raise UserError(
            f"--ensemble: {other} reads other inputs than {places[0]} (other columns, or coded in "
            "another way), and a file has one set of them. Export each alone."
        )
    return Opened(places, *ensemble.combined(members, spec, readers), steps)


def _refuse_unfinished(workdir: Path, allow_code: configs.Allowed) -> None:
    serve.run_config(workdir, allow_code)  # whether it is a run
    record = read_result(workdir)
    status = "running" if record is None else record.get("status")
    if status not in FINAL:
        raise WorkdirError(
            f"{workdir}: its run is {status}, and a file is made of a finished one. Go on with "
            f"`jdlopt train {workdir}` first."
        )


def computing_in_float32(experiment: Experiment) -> Experiment:
    """Returns an experiment whose model computes in float32; parameters always are."""
    config = experiment.config
    if config.model.dtype == "float32":
        return experiment
    raw = configs.to_dict(config)
    raw["model"] = {**raw["model"], "dtype": "float32"}
    built = Experiment.build(
        raw, experiment.spec, learnt_before=experiment.learnt, check=False, begins=False
    )
    return dataclasses.replace(built, predictor=experiment.predictor, dataset=experiment.dataset)
