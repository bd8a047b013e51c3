"""What is heard against what is said: the edits, and the examples with the most of them."""

from __future__ import annotations

import collections
from typing import NamedTuple

import numpy as np

from jdlopt.metrics.edits import ADDED, KEPT, LEFT_OUT, REPLACED, alignment
from jdlopt.metrics.transcripts import error_rate, words
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Table
from jdlopt.tasks import find_task

SHOWN = 20
"""Examples with the highest error rate that are shown."""
LETTERS = 400
"""Of a longer transcript so many characters are aligned."""
COUNTED = 2000
"""Examples whose words are aligned, to count edits."""
CONFUSIONS = 10


class Run(NamedTuple):
    """A piece of a transcript that one thing became of.

    Attributes:
      kind: of `jdlopt.metrics.edits`.
      true: what is said there; empty where something is added.
      said: what is heard there; empty where something is left out.
    """

    kind: str
    true: str
    said: str


class Heard(NamedTuple):
    """What is heard in an example.

    Attributes:
      name: of the example.
      rate: its characters' error rate.
      runs: the transcript, piece by piece.
    """

    name: str
    rate: float
    runs: list[Run]


def transcripts(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of transcripts, as ``transcripts``."""
    spec, task = outcome.spec, find_task(outcome.spec.task)
    assert task.told is not None
    true = task.told(outcome.targets, spec)
    said = task.decode(outcome.outputs, outcome.probabilities, spec).labels
    assert said is not None
    rates = np.array([error_rate([one], [other], list) for one, other in zip(true, said)])
    order = np.argsort(-np.nan_to_num(rates), kind="stable")
    worst = [
        Heard(outcome.name(index), float(rates[index]), runs(true[index], said[index]))
        for index in order[:SHOWN].tolist()
        if rates[index] > 0
    ]
    table, confused = _edits(true[:COUNTED], said[:COUNTED])
    return {
        "transcripts": {
            "wer": error_rate(true, said),
            "cer": error_rate(true, said, list),
            "right": float(np.mean(rates == 0)) if len(rates) else None,
            "edits": table,
            "confusions": confused,
            "worst": worst,
        }
    }


def runs(true: str, said: str) -> list[Run]:
    """Returns the edits of characters that make one transcript of another, equal kinds joined.

    Example:
      >>> [tuple(run) for run in runs("seven", "seen two")]
      [('kept', 'se', 'se'), ('left out', 'v', ''), ('kept', 'en', 'en'), ('added', '', ' two')]
    """
    made: list[Run] = []
    for edit in alignment(true[:LETTERS], said[:LETTERS]):
        one, other = str(edit.true or ""), str(edit.said or "")
        if made and made[-1].kind == edit.kind:
            one, other = made[-1].true + one, made[-1].said + other
            made.pop()
        made.append(Run(edit.kind, one, other))
    return made


def _edits(true: list[str], said: list[str]) -> tuple[Table, Table | None]:
    """Returns how often words are right, replaced, left out and added; and what for what."""
    kinds: collections.Counter[str] = collections.Counter()
    pairs: collections.Counter[tuple[str, str]] = collections.Counter()
    for one, other in zip(true, said, strict=True):
        for edit in alignment(words(one), words(other)):
            kinds[edit.kind] += 1
            if edit.kind != KEPT:
                pairs[str(edit.true or "–"), str(edit.said or "–")] += 1
    whole = max(1, sum(kinds[kind] for kind in (KEPT, REPLACED, LEFT_OUT)))
    names = {KEPT: "right", REPLACED: "replaced", LEFT_OUT: "left out", ADDED: "added"}
    rows = [[name, kinds[kind], f"{kinds[kind] / whole:.1%}"] for kind, name in names.items()]
    of = f"The words of the first {COUNTED:,} examples" if len(true) == COUNTED else "Words"
    table = Table(of, ["words", "count", "of those said"], rows)
    listed = [[one, other, count] for (one, other), count in pairs.most_common(CONFUSIONS)]
    shown = Table("Most frequent edits of words", ["said", "heard", "times"], listed)
    return table, shown if listed else None
