"""What holds a run back: one small pure function a finding, from a record of numbers."""

from __future__ import annotations

from jdlopt.evidence.findings import cost, cures, data, layers, outcome, training, transcripts
from jdlopt.evidence.findings.finding import CAUSES, LEVELS, Finding, Record

__all__ = ["CAUSES", "FINDINGS", "LEVELS", "Finding", "Record", "find"]

FINDINGS = {
    one.__name__: one
    for part in (data, layers, training, outcome, transcripts, cost)
    for one in part.FINDINGS
}
"""Each finding's function, by its name."""


def find(record: Record) -> list[Finding]:
    """Returns all findings of a record, those first that matter most. Pure.

    What they suggest applies to the run, is not in its config already, and agrees.

    Args:
      record: what `jdlopt.evidence.gather.gather` returns, or any part of it that has ``run``.

    Example:
      >>> [one.name for one in find({"run": {"status": "diverged", "steps": 3}})]
      ['divergence']
    """
    found = [one(record) for one in FINDINGS.values()]
    ordered = sorted((one for one in found if one), key=lambda one: -one.score)
    return cures.agreed(ordered, record)
