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
SHARE_OF_CHOOSING = 0.25
"""Of the time that is left, what the first seeds of a round's least candidates may take."""
FIRST_SEEDS = 2
"""Seeds that a round's candidates are tried with at first, at least, where time is not short."""
SHORTER = (1, 2, 4)
"""How many times shorter than a whole one a training may be that only chooses."""
CHOOSING = ((FIRST_SEEDS, 1), (1, 1), (1, 2), (1, 4))
"""First seeds, and how many times shorter trainings are, from the most thorough on. One seed of
whole trainings goes before more of shorter ones: a seed's chance is small where trainings are
long, whereas a short training favours what learns fast, whatever becomes of it."""
LEAST_EPOCHS = 4
"""A training that chooses is not made shorter than this."""


class Pacing(NamedTuple):
    """How far each technique is taken.

    Attributes:
      confirm: seeds of every confirmation.
      test_seeds: seeds of the test at the end.
      shorter: how many times shorter trainings are that choose what is confirmed. It is confirmed,
        and tuned, by whole ones.
      first: seeds that every candidate of a round is tried with, at least.
    """

    confirm: int
    test_seeds: int
    shorter: int = 1
    first: int = FIRST_SEEDS

    @staticmethod
    def read(found: Mapping[str, Any] | None) -> Pacing | None:
        """Returns what a record says; None if it says nothing that can be used."""
        try:
            made = Pacing(**{name: int((found or {})[name]) for name in Pacing._fields})
        except (KeyError, TypeError, ValueError):
            return None
        sound = (
            made.confirm >= 3 and made.test_seeds >= 2 and (made.first, made.shorter) in CHOOSING
        )
        return made if sound else None


def pacing_of(
    seconds: float, left: float, asked: Pacing, *, candidates: int, epochs: float, first: int = 1
) -> Pacing:
    """Returns the most that a budget has time for, of what is asked for at most.

    Args:
      seconds: that one of many trainings takes.
      left: seconds that are left.
      asked: the most.
      candidates: that a round has at least, and what they are compared with.
      epochs: of a whole training; 0 where it can't be shorter.
      first: seeds that candidates are tried with at first, at the least.

    Example:
      >>> most = Pacing(10, 5)
      >>> pacing_of(1.0, 600.0, most, candidates=7, epochs=20)
      Pacing(confirm=10, test_seeds=5, shorter=1, first=2)
      >>> pacing_of(16.0, 500.0, most, candidates=7, epochs=20)
      Pacing(confirm=5, test_seeds=2, shorter=1, first=1)
      >>> pacing_of(30.0, 500.0, most, candidates=7, epochs=20)
      Pacing(confirm=5, test_seeds=2, shorter=2, first=1)
    """
    confirm, test_seeds = asked.confirm, asked.test_seeds
    while seconds * (5 * confirm + 2 * test_seeds) > SHARE_OF_CONFIRMING * left:
        if confirm <= LEAST_CONFIRM and test_seeds <= LEAST_TEST:
            break
        confirm = max(min(LEAST_CONFIRM, confirm), confirm - 1)
        test_seeds = max(min(LEAST_TEST, test_seeds), test_seeds - 1)
    fitting = [
        (seeds, shorter)
        for seeds, shorter in CHOOSING
        if seeds >= first and (epochs / shorter >= LEAST_EPOCHS or shorter == 1)
    ]
    for seeds, shorter in fitting:
        if seconds * candidates * seeds / shorter <= SHARE_OF_CHOOSING * left:
            break
    return Pacing(confirm, test_seeds, shorter, seeds)


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
