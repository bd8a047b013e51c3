"""Weights & Biases, by its own package: ``pip install 'jdlopt[wandb]'``.

Its environment variables say where to: ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_MODE=offline``.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Mapping

from jdlopt.train.loggers.logger import FINAL, Opening, identifier
from jdlopt.writing import A_LINK

FOLDER = "wandb"
"""In the run's directory; the package keeps links to its own logs in it."""
PROJECT = "jdlopt"
"""Where a run goes if ``WANDB_PROJECT`` does not say."""


class WeightsAndBiases:
    """One run of Weights & Biases; where nobody is logged in, it is kept in the run's directory."""

    def __init__(self, opening: Opening):
        if (opening.workdir / FOLDER).is_symlink():
            raise OSError(errno.ELOOP, A_LINK, str(opening.workdir / FOLDER))
        import wandb

        settings = wandb.Settings(console="off", silent=True, symlink=False)
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identifier(opening.identity, "id") or secrets.token_hex(4),
            name=opening.name,
            config=dict(opening.config),
            dir=str(opening.workdir),
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=settings,
        )
        self._url = None if mode == "offline" else self._run.url
        self._first = self._run.step  # of a run that goes on: what lies before is there already

    @property
    def identity(self) -> Mapping[str, str]:
        """The run's id, and its address where it has one."""
        return {"id": self._run.id, **({"url": self._url} if self._url else {})}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values of a step."""
        if step >= self._first:
            self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Does nothing: the package writes what it is given as it comes."""

    def close(self, status: str, metrics: Mapping[str, object]) -> None:
        """Writes the final metrics into the run's summary, and ends it."""
        numbers = {name: one for name, one in metrics.items() if isinstance(one, int | float)}
        self._run.summary.update({**numbers, "status": status})
        self._run.finish(exit_code=0 if status in FINAL else 1)
