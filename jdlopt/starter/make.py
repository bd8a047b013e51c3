"""`jdlopt.init`: a first config for a person's own data, as a config and as a file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdlopt import writing
from jdlopt.data.fields import DataFields
from jdlopt.data.source import kind_of_source
from jdlopt.errors import UserError
from jdlopt.starter import config_file, training
from jdlopt.starter.choose import choose
from jdlopt.starter.facts import TASKS, Choice, Chosen, sections
from jdlopt.starter.found import Found
from jdlopt.starter.survey import survey, survey_given

if TYPE_CHECKING:
    import ml_collections

ON_DISK = ("table", "npz", "prepared folder", "sounds", "texts", "images")
"""The kinds of sources that are named by their path."""


@dataclass(frozen=True)
class Starter:
    """A first config.

    Attributes:
      found: what was found of the data.
      chosen: what was chosen, but for the data's own keys, and what may be searched.
      source: ``data.source``; None for data in memory.
      on_disk: whether that is a path, and no dataset's name.
    """

    found: Found
    chosen: Chosen
    source: str | None
    on_disk: bool = False

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All keys, in the order of the file."""
        source = () if self.source is None else (Choice("data.source", self.source),)
        return (*source, *self.found.section, *self.chosen.choices)

    @property
    def folds(self) -> bool:
        """Whether the validation split is taken out of the training one, so that folds can be."""
        return any(choice.key == "data.validation_fraction" for choice in self.choices)

    def config(self) -> dict[str, Any]:
        """Returns the config as nested dicts."""
        return sections(self.choices)

    def commands(self, file: str) -> list[tuple[str, str]]:
        """Returns what to type next, and what it does.

        Args:
          file: the config file.
        """
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(self.found.name).stem).strip("_") or "mine"
        config, runs = f"--config={shlex.quote(file)}", f"runs/{name}"
        facts = self.found.facts
        # what is monitored may be a loss with smoothed labels, which another config has otherwise
        score = {"classification": "accuracy", "multilabel": "f1_micro"}.get(facts.task)
        score = "balanced_accuracy" if score == "accuracy" and training.is_rare(facts) else score
        metric = f" --metric=validation/{score}" if score else ""
        folds = " --folds=5" if facts.rows < training.FEW_ROWS and self.folds else ""
        return [
            (f"jdlopt data check {config}", "what is wrong with the data:"),
            (f"jdlopt train {config} --workdir={runs}", "train it:"),
            (f"jdlopt diagnose {runs}", "what holds it back:"),
            (
                f"jdlopt improve {config} --workdir={runs}_improved --budget=10m{metric}",
                "try what may make it better, fairly, and keep what does:",
            ),
            (
                f"jdlopt tune {config} --workdir={runs}_study --trials=32{folds}",
                "search what get_space() below names:",
            ),
            (
                f"jdlopt predict {runs} --input=NEW --output=predictions.csv",
                "predict for new data:",
            ),
        ]

    def text(self, file: str) -> str:
        """Returns the config as a Python file.

        Args:
          file: what it will be called.
        """
        return config_file.text(self.choices, self.chosen, self.found.rows, self.commands(file))


def start(source: Any, target: str | Sequence[str] | None, task: str | None) -> Starter:
    """Looks at data and returns a first config for them.

    Args:
      source: a file, folder or dataset's name; or data as `jdlopt.fit` takes them.
      target: the column or columns to predict.
      task: of `TASKS`; None decides by the targets, and says so.

    Raises:
      UserError: the target is not named, or the data can't be trained on; says why.
    """
    if task is not None and task not in TASKS:
        raise UserError(f"--task: {task!r} is none of {', '.join(TASKS)}.")
    names = target if target is None or isinstance(target, str) else tuple(target)
    if not isinstance(source, str | os.PathLike):
        given = survey_given(source, DataFields("", target=names, task=task or "auto"))
        return Starter(given, choose(given.facts), None)
    fields = DataFields(os.fspath(source), target=names, task=task or "auto")
    found, on_disk = survey(fields), kind_of_source(fields) in ON_DISK
    return Starter(found, choose(found.facts), fields.source, on_disk)


def init(
    source: Any,
    target: str | Sequence[str] | None = None,
    *,
    task: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> ml_collections.ConfigDict:
    """Returns a first config for data, to be trained with `jdlopt.fit`.

    Args:
      source: a file, a folder or a dataset's name, as ``data.source``; or what ``fit`` takes as
        ``data``, where the config names no source.
      target: the column or columns to predict, where the data have columns.
      task: ``classification``, ``multilabel`` or ``regression``; by default the targets tell.
      out: a file to write the config in, with comments: what was found, what was chosen and why.
        It must not be there.

    Raises:
      UserError: the target is not named or can't be predicted, the data can't be read, or the file
        is there; says what to do.
    """
    import ml_collections

    made = start(source, target, task)
    if out is not None:
        made = write(made, out)
    return ml_collections.ConfigDict(made.config())


def write(made: Starter, out: str | os.PathLike[str]) -> Starter:
    """Writes a config's file and returns the config as it stands there.

    Args:
      made: the config.
      out: where; it must end in ``.py``, and not be there.

    Raises:
      UserError: it can't be written so.
    """
    path = Path(out)
    check_place(path)
    if made.source is not None and made.on_disk:
        made = replace(made, source=beside(made.source, path.parent))
    text = made.text(os.fspath(out))
    try:
        writing.write_new(path, text)
    except FileExistsError:
        raise UserError(_there(path)) from None
    except OSError as error:
        raise UserError(f"--out: {path} can't be written: {error.strerror}.") from error
    return made


def check_place(path: Path) -> None:
    """Raises a `UserError` if a config file can't be written there."""
    if path.suffix != ".py":
        raise UserError(f"--out: {str(path)!r} must end in .py: a config is a Python file.")
    if path.exists() or path.is_symlink():
        raise UserError(_there(path))
    if not path.parent.is_dir():
        raise UserError(f"--out: there is no folder {str(path.parent)!r}.")


def _there(path: Path) -> str:
    other = path.with_name(f"{path.stem}_2{path.suffix}")
    return (
        f"--out: {path} is there already, and is never overwritten. Name another file, such as "
        f"--out={other}, or remove it."
    )


def beside(source: str, folder: Path) -> str:
    """Returns a path as a config file in a folder names it, so that it is found from here.

    What lies in the folder is named from there, so that both can be moved; all else as it was
    given, from the working directory.

    Example:
      >>> beside("configs/birds.csv", Path("configs")), beside("birds", Path("configs"))
      ('birds.csv', './birds')
    """
    path = Path(os.path.abspath(writing.expanded(source)))
    there, here = Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(folder)
    relative = os.path.relpath(there, here)
    taken = os.path.lexists(relative) and not os.path.samefile(relative, path)  # looked at first
    if relative.startswith(os.pardir) or taken:
        relative = source
    # a folder's name alone could be a dataset's, and is not looked for beside the config
    is_plain = os.sep in relative or bool(Path(relative).suffix)
    return relative if is_plain else f"./{relative}"
