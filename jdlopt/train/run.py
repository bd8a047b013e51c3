"""A run: what a training came to, and what its model is for."""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jdlopt import config as configs
from jdlopt.data.decision import Threshold
from jdlopt.data.given import given_inputs, given_targets, only_split
from jdlopt.data.inputs import Inputs
from jdlopt.data.pools import Arrays
from jdlopt.errors import DataError, UserError, WorkdirError
from jdlopt.train import log, serve, split_record
from jdlopt.train.continuation import Continuation
from jdlopt.train.embeddings import Embeddings, embed
from jdlopt.train.experiment import Experiment
from jdlopt.train.loggers.logger import FINAL
from jdlopt.train.predictions import Predictions
from jdlopt.train.result import read_result
from jdlopt.train.schema import Config
from jdlopt.train.state import TrainState, Weights

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 12
"""Metrics that a notebook shows."""


class Trained(NamedTuple):
    """What a training leaves in memory.

    Attributes:
      experiment: what was trained, with its data.
      state: after the last step.
      weights: of the best evaluation.
      rows: the logged lines, as in ``metrics.jsonl``.
    """

    experiment: Experiment
    state: TrainState
    weights: Weights
    rows: list[dict[str, Any]]


class Run:
    """A run: what it came to, and what can be done with its model.

    Attributes:
      record: the content of ``result.json``.
      workdir: the run's directory; None where nothing was written.
      allow_code: which dotted paths in the directory's records may be imported.
    """

    def __init__(
        self,
        record: dict[str, Any],
        workdir: Path | None,
        trained: Trained | None = None,
        *,
        allow_code: configs.Allowed = False,
    ):
        self.record, self.workdir, self._trained = record, workdir, trained
        self.allow_code = allow_code

    # --- what it came to -------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, Any]:
        """The final metrics: ``train/…``, ``validation/…``, ``test/…``, of the best checkpoint."""
        return self.record.get("metrics", {})

    @property
    def status(self) -> str:
        """``running``, ``done``, ``stopped early``, ``diverged`` or ``interrupted``."""
        return self.record["status"]

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status in FINAL

    @property
    def history(self) -> pd.DataFrame:
        """The logged lines, a step a row: ``step``, ``epoch``, ``train/loss`` and so on."""
        import pandas as pd

        if self._trained is not None:
            rows = self._trained.rows
        else:
            assert self.workdir is not None
            rows = log.read_lines(self.workdir / log.METRICS)
        return pd.DataFrame(rows)

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.experiment.config

    @functools.cached_property
    def splits(self) -> dict[str, pd.DataFrame]:
        """The examples of each split, a row each: which row of the source it is, or which file.

        As ``splits.csv`` in the run's directory has them; ``row`` counts from 0, as ``iloc`` does.

        Raises:
          UserError: the record is damaged; or there is none, and the data are gone or others.
        """
        path = None if self.workdir is None else split_record.find(self.workdir)
        if path is not None:
            return split_record.read(path)
        experiment = self.experiment
        if experiment.dataset is None:
            assert self.workdir is not None
            experiment = serve.experiment_with_data(self.workdir, self.allow_code)
        return split_record.of_dataset(experiment.data)

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The pure functions of the run; of an opened one they need no data, and have none."""
        if self._trained is not None:
            return self._trained.experiment
        assert self.workdir is not None
        return serve.run_experiment(self.workdir, self.allow_code)

    @functools.cached_property
    def state(self) -> TrainState:
        """The state of the newest checkpoint, to train on or to look at."""
        if self._trained is not None:
            return self._trained.state
        assert self.workdir is not None
        return serve.load_state(self.experiment, self.workdir)[0]

    @functools.cached_property
    def weights(self) -> Weights:
        """What the best checkpoint predicts with."""
        if self._trained is not None:
            return self._trained.weights
        assert self.workdir is not None
        return serve.load_weights(self.experiment, self.workdir, "best")[0]

    # --- what can be done with it ----------------------------------------------------------------

    def predict(
        self,
        inputs: object,
        *,
        batch_size: int = 256,
        tta: int = 0,
        all_classes: bool = False,
        positive: object = None,
        threshold: Threshold = None,
        beam_width: int | None = None,
        length_penalty: float | None = None,
        continuation: Continuation | None = None,
    ) -> Predictions:
        """Predicts for new inputs with the best weights.

        Args:
          inputs: raw inputs, as the model was trained on: an array [n, …], a dict of named arrays,
            a DataFrame with the columns of the training data by name, or a file or folder.
          batch_size: examples in one dispatch.
          tta: how many augmented copies of each example predictions are averaged over, beside the
            example itself.
          all_classes: give the probabilities of all classes, even of more than 1,000; else those of
            the likeliest.
          positive: the positive class of two, by its name; by default the config's.
          threshold: it is predicted where its probability is above this, and so are labels, each
            above its own of several; by default the config's.
          beam_width, length_penalty: how texts are written, as in `jdlopt.models.beam.search`; by
            default as the config's model says.
          continuation: how texts are continued, where the task is to know their next token.

        Raises:
          DataError: they are no such inputs, or there is no such class.
        """
        found = self._given(inputs)
        how = (positive, threshold, beam_width, length_penalty)
        decided = serve.deciding(self.experiment, *how)
        return serve.predict(
            decided, self.weights, found, batch_size, tta, all_classes, continuation
        )

    def embed(self, inputs: object, *, batch_size: int = 256) -> Embeddings:
        """Returns embeddings of new inputs, by the best weights.

        Args:
          inputs: as `predict` takes them.
          batch_size: examples in one dispatch.

        Returns:
          Of pairs an embedding of each input, of length 1; of others what the head is given.

        Raises:
          DataError: they are no such inputs.
          ConfigError: the model has no head of its own.
        """
        return embed(self.experiment, self.weights, self._given(inputs), batch_size)

    def _given(self, inputs: object) -> Inputs:
        """Returns new inputs, read as the training data were."""
        spec, passed = self.experiment.spec, serve.passed_over(self.experiment)
        if isinstance(inputs, str | os.PathLike):
            found = serve.read_for(self.experiment, inputs)
        else:
            found = given_inputs(inputs, spec.inputs, passed)
        if not len(found.ids):
            raise DataError("predict: there is no example to predict for.")
        return found

    def evaluate(
        self,
        split: str = "test",
        data: tuple[object, object] | None = None,
        *,
        tta: int = 0,
        positive: object = None,
        threshold: Threshold = None,
        beam_width: int | None = None,
        length_penalty: float | None = None,
    ) -> dict[str, Any]:
        """Returns every metric that the task has, of the best weights.

        Args:
          split: ``train``, ``validation`` or ``test`` of the run's own data.
          data: instead, inputs (as `predict` takes them, but no path) and their targets, coded as
            the training data's were: classes by their names, or numbers.
          tta, positive, threshold, beam_width, length_penalty: as in `predict`.

        Raises:
          UserError: there is no such split, or the data can't be used.
        """
        experiment = self.experiment
        if data is not None:
            given = given_inputs(data[0], experiment.spec.inputs, with_targets=True)
            cleaning = experiment.config.data.text
            targets = given_targets(data[1], experiment.spec, len(given.ids), given.texts, cleaning)
            examples = Arrays(given.inputs, targets)
            experiment = experiment.on(only_split(experiment.spec, split, examples))
        elif experiment.dataset is None:
            assert self.workdir is not None
            experiment = serve.experiment_with_data(self.workdir, self.allow_code)
        if not experiment.data.sizes.get(split):
            known = ", ".join(name for name, size in experiment.data.sizes.items() if size)
            raise UserError(f"evaluate: the data have no split {split!r}; there are: {known}.")
        how = (positive, threshold, beam_width, length_penalty)
        experiment = serve.deciding(experiment, *how, measured=True)
        found = serve.measure(experiment, self.weights, split, tta)
        return {name.partition("/")[2]: value for name, value in found.items()}

    # --- how it shows itself ---------------------------------------------------------------------

    def _shown(self) -> list[tuple[str, float]]:
        numbers = [
            (name, value)
            for name, value in self.metrics.items()
            if isinstance(value, int | float) and not name.startswith("train/")
        ]
        return numbers[:SHOWN]

    def __repr__(self) -> str:
        where = "" if self.workdir is None else f" in {self.workdir}"
        found = ", ".join(f"{name} {value:.4g}" for name, value in self._shown()[:4])
        return f"<Run{where}: {self.status} after {self.record.get('steps', 0):,} steps; {found}>"

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the status and the final metrics."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{value:.5g}</td></tr>"
            for name, value in self._shown()
        )
        where = "" if self.workdir is None else f" · <code>{html.escape(str(self.workdir))}</code>"
        return (
            f"<p><b>{html.escape(self.status)}</b> after {self.record.get('steps', 0):,} "
            f"steps{where}</p><table><tr><th>metric</th><th>value</th></tr>{rows}</table>"
        )


def open_run(workdir: str | Path, *, allow_code: bool = False) -> Run:
    """Opens a run's directory; nothing of its model or data is loaded before it is asked for.

    Args:
      workdir: the run's directory.
      allow_code: import the parts that its config names by dotted path, which runs their code. Only
        for a directory that you trust.

    Raises:
      WorkdirError: the directory holds no run, its records are damaged, or they name code that is
        not allowed.
    """
    place = Path(workdir)
    serve.run_config(place, allow_code)  # whether it is one
    record: Mapping[str, Any] | None = read_result(place)
    if record is None and not (place / log.CHECKPOINTS).exists():
        raise WorkdirError(f"{place}: its run has neither a result nor a checkpoint yet.")
    return Run(dict(record or {"status": "running"}), place, allow_code=allow_code)
