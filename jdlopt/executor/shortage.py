"""What is tried where memory is short: fewer trials at once, then one with the machine for itself.

A shortage says nothing about what was being trained: it is no result. But what never fits must not
keep the rest from being trained, so that it is left out in the end.
"""

from __future__ import annotations

from typing import NamedTuple

FEWER = 4
"""One in so many of a population's trials is tried next."""
DID_NOT_FIT = "did not fit in memory"


class Share(NamedTuple):
    """How much of a task is done at a time.

    Attributes:
      at_once: trials of a population that are trained together at most; None: all of them.
      alone: whether no other worker lives meanwhile.
    """

    at_once: int | None = None
    alone: bool = False


WHOLE = Share()


def smaller(share: Share, trials: int) -> Share | None:
    """Returns what is tried after a share that did not fit; None where nothing is smaller.

    Args:
      share: what did not fit.
      trials: of the whole population.

    Example:
      >>> smaller(Share(), 8), smaller(Share(2), 8), smaller(Share(1, alone=True), 8)
      (Share(at_once=2, alone=False), Share(at_once=1, alone=True), None)
    """
    if share.alone:
        return None
    fewer = -(-(share.at_once or trials) // FEWER)
    return Share(fewer) if fewer > 1 else Share(1, alone=True)


def tighter(one: Share, other: Share) -> Share:
    """Returns the smaller of two shares.

    Example:
      >>> tighter(Share(), Share(2)), tighter(Share(1, alone=True), Share(2))
      (Share(at_once=2, alone=False), Share(at_once=1, alone=True))
    """
    return max(one, other, key=lambda share: (share.alone, -(share.at_once or 10**9)))
