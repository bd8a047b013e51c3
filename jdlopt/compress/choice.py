"""Which candidate is taken: the smallest or the fastest of those that lose little enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jdlopt.evidence.costs import FASTER, Row, cost_of, limit_of
from jdlopt.evidence.margin import ACCEPTED
from jdlopt.evidence.options import SIZE, SPEED


def chosen(rows: Sequence[Row], baseline: Row, prefer: str) -> Row | None:
    """Returns the accepted row that is smallest or fastest; None where none is less than now.

    Of equals, the one that is less in the other respect is taken, and then the more accurate one.

    Args:
      rows: the candidates.
      baseline: the run as it is.
      prefer: ``size`` or ``speed``.
    """
    other = SPEED if prefer == SIZE else SIZE
    limit = limit_of(baseline, prefer)
    able = [row for row in rows if row["decision"] == ACCEPTED and cost_of(row, prefer) < limit]

    def order(row: Row) -> tuple[float, float, float]:
        first = cost_of(row, prefer)
        # times within the limit of each other are equal, as far as they can be told apart
        step = first if prefer == SIZE else math.floor(math.log(first) / math.log(FASTER))
        sign = step if prefer == SIZE else -step
        return sign, cost_of(row, other), row["loss"]["mean"]

    return min(able, key=order, default=None)


def mark_front(rows: Sequence[Row]) -> None:
    """Marks the rows that none beats: as good a metric in fewer bytes and less time.

    Args:
      rows: the candidates and the baseline, whose ``on_front`` is set.
    """
    known = [row for row in rows if row["loss"] is not None]

    def key(row: Row) -> tuple[float, float, float]:
        return row["loss"]["mean"], cost_of(row, SIZE), cost_of(row, SPEED)

    for row in rows:
        row["on_front"] = row in known and not any(
            all(a <= b for a, b in zip(key(one), key(row), strict=True)) and key(one) != key(row)
            for one in known
        )
