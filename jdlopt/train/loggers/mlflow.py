"""MLflow, by its own package: ``pip install 'jdlopt[mlflow]'``.

Its environment variables say where to: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from jdlopt import config as configs
from jdlopt.train.loggers.logger import FINAL, Opening, identifier

EXPERIMENT = "jdlopt"
"""Where a run goes if ``MLFLOW_EXPERIMENT_NAME`` does not say."""
MOST_PARAMS = 100
"""Parameters that one request may have."""
LONGEST = 6000
"""Characters that a parameter may have."""
STATUSES = {**dict.fromkeys(FINAL, "FINISHED"), "interrupted": "KILLED"}
RESULT = "result/"
"""What the final metrics begin with, so that they are no points of the curves."""


class MLflow:
    """One run of MLflow."""

    def __init__(self, opening: Opening):
        for name in ("mlflow", "alembic"):  # they tell of each table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._run, self._last = self._resumed(identifier(opening.identity, "run_id"))
        if self._run is None:
            made = self._client.create_run(self._experiment(), run_name=opening.name)
            self._run = made.info.run_id
        self._log_params(configs.flat(opening.config))

    @property
    def identity(self) -> Mapping[str, str]:
        """The run's id."""
        assert self._run is not None
        return {"run_id": self._run}

    def _resumed(self, run_id: str | None) -> tuple[str | None, int]:
        """Returns a run that is there to go on with, and the last step that it has values of."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None, -1
        try:
            self._client.update_run(run_id, status="RUNNING")
            points = self._client.get_metric_history(run_id, "epoch")
        except MlflowException:
            return None, -1  # it is in another store, or was deleted
        return run_id, max((point.step for point in points), default=-1)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        with contextlib.suppress(MlflowException):  # another process makes it at this moment
            return self._client.create_experiment(name)
        return self._client.get_experiment_by_name(name).experiment_id

    def _log_params(self, config: Mapping[str, Any]) -> None:
        """Logs the config; a parameter that is there can't be changed, and stays as it was."""
        from mlflow.entities import Param

        known = self._client.get_run(self._run).data.params
        new = [
            Param(key, str(value)[:LONGEST]) for key, value in config.items() if key not in known
        ]
        for first in range(0, len(new), MOST_PARAMS):
            self._client.log_batch(self._run, params=new[first : first + MOST_PARAMS])

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._client.log_batch(self._run, metrics=found)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values of a step."""
        if step > self._last:
            self._log_metrics(values, step)

    def flush(self) -> None:
        """Does nothing: each request is written at once."""

    def close(self, status: str, metrics: Mapping[str, object]) -> None:
        """Logs the final metrics, and ends the run."""
        numbers = {
            RESULT + name: float(one)
            for name, one in metrics.items()
            if isinstance(one, int | float)
        }
        if status in FINAL and numbers:
            self._log_metrics(numbers, 0)
        self._client.set_terminated(self._run, STATUSES.get(status, "FAILED"))
