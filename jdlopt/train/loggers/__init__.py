"""Where a run's values are logged beside ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util

from jdlopt.config import find_part
from jdlopt.config.parts import is_path
from jdlopt.errors import ConfigError, listing, nearest
from jdlopt.train.loggers.logger import Logger, Opener, Opening

__all__ = ["LOGGERS", "check", "find_logger", "unknown"]


def _tensorboard(opening: Opening) -> Logger:
    from jdlopt.train.loggers.tensorboard import TensorBoard

    return TensorBoard(opening)


def _csv(opening: Opening) -> Logger:
    from jdlopt.train.loggers.csv_file import CsvFile

    return CsvFile(opening)


def _wandb(opening: Opening) -> Logger:
    from jdlopt.train.loggers.wandb import WeightsAndBiases

    return WeightsAndBiases(opening)


def _mlflow(opening: Opening) -> Logger:
    from jdlopt.train.loggers.mlflow import MLflow

    return MLflow(opening)


LOGGERS: dict[str, Opener] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""Every bundled logger by name; each imports its library when it is opened."""

EXTRAS = ("wandb", "mlflow")
"""Loggers whose library, of the same name, is an extra of jdlopt's."""


def find_logger(name: str) -> Opener:
    """Returns what opens the logger of a name, or of a dotted path ``package.module:name``.

    Raises:
      ConfigError: there is none, or its library is not installed.
    """
    if name in EXTRAS and util.find_spec(name) is None:
        raise ConfigError(
            f"train.loggers: {name!r} needs the package {name}, which is not installed: "
            f"pip install 'jdlopt[{name}]'"
        )
    opener: Opener = find_part(name, LOGGERS, "train.loggers")
    return opener


def check(names: Sequence[str]) -> None:
    """Checks that loggers can be opened, before anything is trained.

    Raises:
      ConfigError: one can't, as `find_logger` says it.
    """
    for name in names:
        find_logger(name)


def unknown(names: Sequence[str]) -> list[str]:
    """Returns what is wrong with the names themselves, in words; nothing is imported.

    Example:
      >>> unknown(["csv", "mine:open_log"])
      []
      >>> print(*unknown(["tensorbord"]))
      train.loggers: 'tensorbord' is unknown. Did you mean 'tensorboard'? Known: csv, mlflow, ...
    """
    return [
        f"train.loggers: {name!r} is unknown.{nearest(name, LOGGERS)} Known: {listing(LOGGERS)}; "
        "or a dotted path 'package.module:name' to one of your own."
        for name in names
        if name not in LOGGERS and not is_path(name)
    ]
