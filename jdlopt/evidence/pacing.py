"""How far ``improve`` goes with each technique, so that what it tries fits into its budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jdlopt.errors import UserError
from jdlopt.evidence.sides import Side, side_of

if TYPE_CHECKING:
    from jdlopt.train.schema import Config

LEAST_CONFIRM, LEAST_TEST = 5, 2
"""Seeds of a confirmation, and of the test at the end, that are kept however short time is."""
SHARE_OF_CONFIRMING = 0.6
"""Of the time that is left, what the baseline, one confirmation and the end may take together."""
SHARE_OF_CHOOSING = 0.15
"""Of the time that is left, what the first seeds of a round's least candidates may take."""
SHORTER = (1, 2, 4)
"""How many times shorter than a whole one a training may be that only chooses."""
LEAST_EPOCHS = 4
"""A training that chooses is not made shorter than this."""


class Pacing(NamedTuple):
    """How far each technique is taken.

    Attributes:
      confirm: seeds of every confirmation.
      test_seeds: seeds of the test at the end.
      shorter: how many times shorter trainings are that choose what is confirmed. It is confirmed,
        and tuned, by whole ones.
    """

    confirm: int
    test_seeds: int
    shorter: int = 1

    @staticmethod
    def read(found: Mapping[str, Any] | None) -> Pacing | None:
        """Returns what a record says; None if it says nothing that can be used."""
        try:
            made = Pacing(**{name: int((found or {})[name]) for name in Pacing._fields})
        except (KeyError, TypeError, ValueError):
            return None
        sound = made.confirm >= 3 and made.test_seeds >= 2 and made.shorter in SHORTER
        return made if sound else None


def pacing_of(
    seconds: float, left: float, asked: Pacing, *, trainings: int, epochs: float
) -> Pacing:
    """Returns the most that a budget has time for, of what is asked for at most.

    Args:
      seconds: that one of many trainings takes.
      left: seconds that are left.
      asked: the most.
      trainings: that the first seeds of a round's least candidates are.
      epochs: of a whole training.

    Example:
      >>> most = Pacing(10, 5)
      >>> pacing_of(1.0, 600.0, most, trainings=14, epochs=20)
      Pacing(confirm=10, test_seeds=5, shorter=1)
      >>> pacing_of(16.0, 500.0, most, trainings=14, epochs=20)
      Pacing(confirm=5, test_seeds=2, shorter=4)
    """
    confirm, test_seeds = asked.confirm, asked.test_seeds
    while seconds * (5 * confirm + 2 * test_seeds) > SHARE_OF_CONFIRMING * left:
        if confirm <= LEAST_CONFIRM and test_seeds <= LEAST_TEST:
            break
        confirm = max(min(LEAST_CONFIRM, confirm), confirm - 1)
        test_seeds = max(min(LEAST_TEST, test_seeds), test_seeds - 1)
    fitting = [one for one in SHORTER if epochs / one >= LEAST_EPOCHS or one == 1]
    enough = [one for one in fitting if seconds * trainings / one <= SHARE_OF_CHOOSING * left]
    return Pacing(confirm, test_seeds, min(enough, default=fitting[-1]))


def shortened(side: Side, shorter: int) -> Config:
    """Returns the config of a training that chooses.

    Raises:
      UserError: it can't be so short: something begins after its end.
    """
    if shorter == 1:
        return side.config
    train = side.config.train
    key = "steps" if train.steps is not None else "epochs"
    whole = getattr(train, key)
    change = {f"train.{key}": max(1, round(whole / shorter))}
    return side_of(side.raw, change, like=side).config


def can_be_shortened(side: Side) -> bool:
    """Says whether trainings of a config can be made shorter."""
    try:
        shortened(side, SHORTER[-1])
    except UserError:
        return False
    return True
