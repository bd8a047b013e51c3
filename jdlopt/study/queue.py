"""The points that a study trains first, as its storage keeps them: each becomes one trial."""

from __future__ import annotations

import json
from collections.abc import Container

from optuna.trial import FrozenTrial

from jdlopt.errors import WorkdirError
from jdlopt.study.enqueue import BASE, Planned
from jdlopt.study.sampler_view import NAME
from jdlopt.study.setup import Setup
from jdlopt.study.storage import StudyStorage

KEPT = "enqueued:"
"""How the attributes of a study begin that keep its points, each by its name."""


class Queue:
    """The points of a study that are asked for, and the trials that they have become.

    The base config is one of them where a study begins with it; what is asked for later comes
    behind what waits. Of a grid, whose trials' numbers say their points, they are the first ones.

    Args:
      setup: what the study is.
      storage: where points are kept.

    Raises:
      WorkdirError: another hand has changed the storage.
    """

    def __init__(self, setup: Setup, storage: StudyStorage):
        self.setup, self.storage = setup, storage
        self.points: dict[str, Planned] = {}
        self.numbers: dict[str, int] = {}
        if setup.grid is not None:
            self.points = {one.name: one for one in setup.first}
            self.numbers = {name: number for number, name in enumerate(self.points)}
            return
        kept = self._kept()
        begun = bool(kept or storage.trials())
        for one in setup.first:
            if one.name in kept or (begun and one.origin == BASE):
                continue
            text = json.dumps({"order": len(kept), **one.to_dict()})
            storage.storage.set_study_user_attr(storage.id, f"{KEPT}{one.name}", text)
            kept[one.name] = len(kept), one
        self.points = {one.name: one for _, one in sorted(kept.values(), key=lambda row: row[0])}

    def _kept(self) -> dict[str, tuple[int, Planned]]:
        """Returns the order of every point that the storage keeps, and the point."""
        found = {}
        attrs = self.storage.storage.get_study_user_attrs(self.storage.id)
        for key, text in attrs.items():
            if not key.startswith(KEPT):
                continue
            try:
                record = json.loads(str(text))
                one = Planned.from_dict(record, self.setup.space)
                found[one.name] = int(record["order"]), one
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
                raise WorkdirError(
                    f"--workdir: {self.setup.workdir}: in the study's storage, {key} is no point "
                    f"as jdlopt writes it ({error!r:.80}). Something else has written there; put "
                    "back a copy of the storage, or choose another --workdir."
                ) from error
        return found

    def note(self, trial: FrozenTrial) -> None:
        """Notes a trial of the storage, if it is one of the points."""
        name = trial.system_attrs.get(NAME)
        if isinstance(name, str) and name in self.points:
            self.numbers.setdefault(name, trial.number)

    def next(self) -> Planned | None:
        """Returns the point that is to be drawn next here; None if the sampler draws its own.

        One coordinator draws them: that of the first slot, or one that is alone.
        """
        if len(self.numbers) == len(self.points):
            return None
        for trial in self.storage.trials():
            self.note(trial)
        left = [one for name, one in self.points.items() if name not in self.numbers]
        if not left or (self.storage.slot and not self.storage.alone()):
            return None
        return left[0]

    def origins(self) -> dict[int, str]:
        """Returns where the points of trials come from that no sampler drew, by number."""
        return {number: self.points[name].origin for name, number in self.numbers.items()}

    def record(self, known: Container[int]) -> list[dict[str, object]]:
        """Returns the points as ``study.json`` keeps them, each with its trial's number or None.

        Args:
          known: the numbers of the trials that ``study.json`` has.
        """
        found = []
        for name, one in self.points.items():
            number = self.numbers.get(name)
            found.append({**one.to_dict(), "trial": number if number in known else None})
        return found
