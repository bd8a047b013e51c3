"""A loss of the margin is rarely accepted, however often one looks; no loss mostly is."""

from __future__ import annotations

import numpy as np
import pytest

from jdlopt.errors import UserError
from jdlopt.evidence.margin import ACCEPTED, REJECTED, UNDECIDED, decide, looks
from jdlopt.evidence.within import check_within, read_within

MARGIN = 0.005


def accepted(losses: np.ndarray, margin: float = MARGIN) -> bool:
    """Whether a candidate with these losses is accepted, at any look that the verb takes."""
    for count in looks(len(losses)):
        found = decide(losses[:count].tolist(), margin, 0.95)
        if found.decision != UNDECIDED or found.hopeless:
            return found.decision == ACCEPTED
    return False


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_loss_of_the_margin_is_rarely_accepted(noise: float, seeds: int):
    rng = np.random.default_rng(seeds)
    drawn = MARGIN + noise * MARGIN * rng.normal(size=(400, seeds))
    assert sum(map(accepted, drawn)) <= 0.05 * 400


def test_no_loss_is_accepted_where_pairs_differ_little():
    drawn = 0.2 * MARGIN * np.random.default_rng(0).normal(size=(400, 5))
    assert sum(map(accepted, drawn)) >= 0.9 * 400


def test_what_is_decided():
    assert decide([], MARGIN, 0.95).decision == UNDECIDED
    assert decide([0.0, 0.0], MARGIN, 0.95).decision == UNDECIDED  # two pairs never decide
    assert decide([0.2, 0.21, 0.19, 0.2], MARGIN, 0.95).decision == REJECTED
    # ten equal values of a metric that moves in steps of a margin say little
    assert decide([0.0] * 3, MARGIN, 0.95, resolution=10 * MARGIN).decision == UNDECIDED


@pytest.mark.parametrize(
    ("text", "baseline", "margin"),
    [("0.5pp", 0.9, 0.005), ("2%", 0.9, 0.018), ("1e-2", 3.0, 0.01), (" 3 % ", -2.0, 0.06)],
)
def test_what_may_be_lost_is_read(text: str, baseline: float, margin: float):
    assert read_within(text).margin(baseline) == pytest.approx(margin)


@pytest.mark.parametrize("text", ["", "half", "0pp", "-1%", "nan", "0.5 pp each", "0"])
def test_what_may_be_lost_is_refused(text: str):
    with pytest.raises(UserError, match="--within"):
        read_within(text)


def test_what_may_be_lost_must_suit_the_metric():
    check_within(read_within("0.5pp"), "validation/accuracy")
    check_within(read_within("2%"), "validation/rmse")
    check_within(read_within("3"), "validation/rmse")
    for text, metric in (("0.5pp", "validation/rmse"), ("0.1", "validation/accuracy")):
        with pytest.raises(UserError, match="--within"):
            check_within(read_within(text), metric)
