"""What a compression is asked for, and which of the accepted candidates it takes."""

from __future__ import annotations

import pytest

from jdlopt.compress import choice
from jdlopt.compress.options import CompressionOptions
from jdlopt.errors import UserError
from jdlopt.evidence.costs import Row
from jdlopt.evidence.margin import ACCEPTED, REJECTED, UNDECIDED


def test_options_are_checked_in_one_message():
    with pytest.raises(UserError) as error:
        CompressionOptions(
            within="no", methods=("half_widht",), batch_sizes=(0,), runtime="onxx"
        ).check()
    said = str(error.value)
    assert all(one in said for one in ("--within", "half_width", "--batch-sizes", "--runtime"))


def row(name: str, decision: str, size: int, ms: float, loss: float) -> Row:
    return {
        "name": name,
        "decision": decision,
        "bytes": size,
        "ms": {"1": {"against": ms}},
        "loss": {"mean": loss},
    }


BASE = row("baseline", "baseline", 100, 1.0, 0.0)


def test_the_smallest_or_the_fastest_of_what_is_accepted_is_taken():
    rows = [
        row("small", ACCEPTED, 40, 1.2, 0.001),
        row("smaller", UNDECIDED, 10, 0.1, 0.0),
        row("fast", ACCEPTED, 80, 0.5, 0.002),
    ]
    assert choice.chosen(rows, BASE, "size") is rows[0]
    assert choice.chosen(rows, BASE, "speed") is rows[2]
    assert choice.chosen(rows[1:2], BASE, "size") is None
    same = [row("slow", ACCEPTED, 100, 1.0, 0.0), row("noise", ACCEPTED, 90, 0.99, 0.0)]
    assert choice.chosen(same, BASE, "speed") is None  # one per cent is no other time


def test_the_front_is_what_nothing_beats():
    rows = [BASE, row("a", ACCEPTED, 50, 1.0, 0.0), row("b", REJECTED, 20, 0.5, 0.1)]
    choice.mark_front(rows)
    assert [one["on_front"] for one in rows] == [False, True, True]
