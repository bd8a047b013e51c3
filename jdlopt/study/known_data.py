"""What data a study's trials were trained on, so that other data in their place are noticed."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TypedDict

from jdlopt.config import flat
from jdlopt.errors import WorkdirError
from jdlopt.study.setup import POPULATIONS, Setup
from jdlopt.study.storage import StudyStorage
from jdlopt.train import data_record

DATA = "data"
"""The attribute of a study that keeps it."""


class ChangedDataWarning(UserWarning):
    """Training goes on with other data than it began with."""


class Known(TypedDict):
    """Data that some trials were trained on.

    Attributes:
      before: the numbers of the trials that were trained on others before.
      changes: in words, how the data differ from those before; empty of the first.
      data: what tells them from others, as `jdlopt.train.data_record.fingerprint` has it.
    """

    before: list[int]
    changes: str
    data: dict[str, object]


def keep(storage: StudyStorage, setup: Setup) -> list[Known]:
    """Writes down what data a study is about, or checks that it goes on with the same ones.

    Args:
      storage: where it is kept, so that all who work on the study see it.
      setup: of the study; its data are those that are there now.

    Returns:
      What the trials were trained on, in order: one, unless changed data were taken.

    Raises:
      WorkdirError: the data are not those of before, and ``changed_data`` is ``refuse``.
    """
    known = _read(storage)
    changes = data_record.differences(known[-1]["data"], setup.data) if known else ""
    if known and not changes:
        return known
    before = [trial.number for trial in storage.trials() if trial.state.is_finished()]
    if changes:
        source = flat(setup.config).get("data.source")
        if setup.options.changed_data != "ok":
            raise WorkdirError(
                f"--workdir: the study in {setup.workdir} began with other data in {source!r}:\n"
                f"{changes}\nTrials on other data can't be compared with its own. Bring the old "
                "data back, or choose another --workdir; --changed-data=ok (changed_data='ok') "
                "goes on all the same, and notes which trials had which data."
            )
        warnings.warn(
            f"the data in {source!r} are not those that {len(before)} trials were trained on; the "
            f"others are trained on what is there now:\n{changes}",
            ChangedDataWarning,
            stacklevel=2,
        )
        shutil.rmtree(setup.workdir / POPULATIONS, ignore_errors=True)  # begun on the old ones
    known.append({"before": before if known else [], "changes": changes, "data": setup.data})
    storage.storage.set_study_user_attr(storage.id, DATA, json.dumps(known))
    return known


def _read(storage: StudyStorage) -> list[Known]:
    """What a storage says; what another hand has changed counts as nothing."""
    text = storage.storage.get_study_user_attrs(storage.id).get(DATA)
    try:
        rows = json.loads(str(text))
        found: list[Known] = [
            {
                "before": [int(number) for number in row["before"]],
                "changes": str(row["changes"]),
                "data": dict(row["data"]),
            }
            for row in rows
        ]
    except (ValueError, KeyError, TypeError):
        return []
    return found if all(data_record.is_whole(one["data"]) for one in found) else []
