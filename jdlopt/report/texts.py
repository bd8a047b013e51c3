"""Texts that a model writes: how many are right, and what is to be changed of the others."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdlopt.data import text
from jdlopt.data.named import by_name
from jdlopt.data.target_texts import spelt_whole
from jdlopt.report.outcome import Outcome
from jdlopt.tasks import find_task

MOST = 12
"""Texts that are shown."""
LETTERS = 400
"""Letters of a source or a target that are shown."""
SAME, MISSING, WRONG = "same", "missing", "wrong"
"""What a piece of a text is: as it should be; to be put in; to be taken out."""
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


class Edited(NamedTuple):
    """A text that was written, and what is to be changed of it.

    Attributes:
      name: of the example.
      source: what it was written from.
      target: what was to be written.
      pieces: of both, each with what it is.
    """

    name: str
    source: str
    target: str
    pieces: Sequence[tuple[str, str]]


def edits(written: str, target: str) -> list[tuple[str, str]]:
    """Returns the pieces of a written text and its target, in order, each with what it is.

    Texts with spaces are compared by words and signs, others by characters.

    Example:
      >>> edits("a cat sits", "a dog sits")
      [('same', 'a '), ('wrong', 'cat'), ('missing', 'dog'), ('same', ' sits')]
      >>> edits("1999-04", "1999-05-")
      [('same', '1999-0'), ('wrong', '4'), ('missing', '5-')]
    """
    apart = " " in target or " " in written
    one, other = (_WORDS.findall(words) if apart else list(words) for words in (written, target))
    made: list[tuple[str, str]] = []
    for what, i, j, k, end in difflib.SequenceMatcher(None, one, other, False).get_opcodes():
        if what == "equal":
            made.append((SAME, "".join(one[i:j])))
            continue
        made += [(WRONG, "".join(one[i:j]))] if j > i else []
        made += [(MISSING, "".join(other[k:end]))] if end > k else []
    return made


def texts(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of them, as ``texts``: those of the largest loss."""
    task, spec = find_task(outcome.spec.task), outcome.spec
    assert task.told is not None
    targets = task.told(outcome.targets, spec)
    written = task.decode(outcome.outputs, None, spec).labels
    assert written is not None
    wrong = np.array([one != other for one, other in zip(written, targets, strict=True)])
    wrong |= ~spelt_whole(outcome.targets)
    order = np.argsort(-np.nan_to_num(outcome.losses, nan=np.inf), kind="stable")
    chosen = [place for place in order.tolist() if wrong[place]][:MOST]
    (one,) = spec.named.values()
    assert one.text is not None
    sources = text.decode(one.text.state, next(iter(by_name(outcome.inputs).values()))[chosen])
    rows = [
        Edited(outcome.name(place), source[:LETTERS], targets[place][:LETTERS],
               edits(written[place], targets[place]))
        for place, source in zip(chosen, sources, strict=True)
    ]  # fmt: skip
    right, count = int((~wrong).sum()), len(wrong)
    words = f"{right:,} of {count:,} texts of the validation split are right to the letter."
    return {"texts": {"words": words, "rows": rows}}
