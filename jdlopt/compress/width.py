"""A model of half the width, trained anew by the run's own config."""

from __future__ import annotations

from jdlopt.compress.entry import Candidate, Given, Method, Train
from jdlopt.evidence.options import SIZE, SPEED
from jdlopt.evidence.techniques import TECHNIQUES


def _why_not(given: Given) -> str | None:
    if given.config.model.pretrained is not None:
        return "The run starts from weights of its own width."
    if not TECHNIQUES["narrower"].changes(given.config, given.facts):
        return f"model {given.config.model.name!r} has no widths to halve."
    return None


def _candidates(given: Given) -> tuple[Candidate, ...]:
    half = TECHNIQUES["narrower"].changes(given.config, given.facts)[0]
    return (Candidate("half_width", (Train(half, epochs=1.0, rate=1.0, anew=True),)),)


HALF_WIDTH = Method(
    "half_width", (SIZE, SPEED), "Trains a model of half the width, from random weights.",
    "a training", "the baseline that a method which keeps weights must beat", _candidates, _why_not,
)  # fmt: skip
