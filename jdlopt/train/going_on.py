"""Where a run goes on that began from other weights: in its own directory, without theirs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdlopt import mesh as meshes
from jdlopt import writing
from jdlopt.config import AnyConfig, dumps, paths_in, text_of, to_dict
from jdlopt.data import from_run
from jdlopt.train import beginning, checkpoint, log
from jdlopt.train.experiment import Experiment
from jdlopt.train.saving import platform_of


class Begun(NamedTuple):
    """A run that began already from other weights: nothing is taken from their place any more.

    Attributes:
      config: as given, but what was taken from there before is the run's own now.
      fit_on: what the run's config says of ``data.fit_on``.
      looks_again: whether the weights are there and are compared: a file's; a run may have gone on.
    """

    config: dict[str, Any]
    fit_on: str
    looks_again: bool

    def as_saved(self, experiment: Experiment) -> Experiment:
        """Returns the experiment with the config that the run's directory has."""
        config = experiment.config
        data = dataclasses.replace(config.data, fit_on=self.fit_on)
        return dataclasses.replace(experiment, config=dataclasses.replace(config, data=data))


def begun(raw: AnyConfig, workdir: str | Path | None) -> Begun | None:
    """Returns how a config goes on in a directory whose run began from weights; None if none did.

    Args:
      raw: a config as given.
      workdir: where it is to be trained.
    """
    if workdir is None or not checkpoint.steps(Path(workdir) / log.CHECKPOINTS):
        return None
    config, place = to_dict(raw), Path(workdir)
    given = config.get("model")
    named = text_of(given.get("pretrained")) if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not named or not from_run.is_run(place):
        return None
    saved = log.saved_config(place / log.CONFIG)
    before = saved.get("model", {})
    if before.get("pretrained") != named or not isinstance(saved.get("data"), dict):
        return None  # another run's directory, which is said when it is claimed
    data = config.get("data")
    fit_on = saved["data"].get("fit_on", from_run.TRAIN)
    if text_of(given.get("name")) == before.get("name"):
        config["model"] = {**before, **given}
    if fit_on != from_run.TRAIN and isinstance(data, Mapping):
        config["data"] = {**data, "fit_on": str(place)}
    is_file = (log.began_with(place) or {}).get("family") != beginning.FAMILY
    return Begun(config, fit_on, is_file and writing.expanded(named).exists())


def is_known(experiment: Experiment, workdir: str | Path | None) -> bool:
    """Says whether a run of this very config was saved on such devices, so that its step works.

    With parts of one's own it never is: they may have changed since, and their config has not.

    Args:
      experiment: what is to be trained.
      workdir: where.
    """
    if workdir is None or paths_in(experiment.config.to_dict()):
        return False
    folder = Path(workdir) / log.CHECKPOINTS
    kept = checkpoint.steps(folder)
    with contextlib.suppress(OSError, ValueError):  # what is damaged counts as unknown
        before = (Path(workdir) / log.CONFIG).read_text(encoding="utf-8")
        if kept and before == dumps(experiment.config):
            meta = checkpoint.read_meta(checkpoint.place(folder, kept[-1]))
            return meta.get("platform") == platform_of(meshes.make_mesh(experiment.config.mesh))
    return False
