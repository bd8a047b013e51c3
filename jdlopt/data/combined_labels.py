"""Texts that are taken for one label each and look like several, with something between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jdlopt.data.notes import MOST_TOLD, Note

SEPARATORS = ("|", ";", ",")
"""What stands between labels in most files."""
LEAST_SHARE = 0.05
"""Of the examples, that hold a separator; fewer are names with a comma in them."""
UNIQUE, LEAST_CLASSES = 0.5, 20
"""Where there are so many classes an example, and so many, nearly every example has its own."""


class Combined(NamedTuple):
    """Labels that are combinations of others.

    Attributes:
      separator: what stands between the labels; None where none of `SEPARATORS` does, and nearly
        every example has a label of its own.
      labels: those that are combinations, the most frequent first.
      apart: how many labels there are when they are split.
      examples: how many examples have such a label.
    """

    separator: str | None
    labels: tuple[str, ...]
    apart: int
    examples: int


def combined(counts: Mapping[str, int], examples: int) -> Combined | None:
    """Returns which labels look like several in one, or None if none does.

    Those with a separator do if at least `LEAST_SHARE` of the examples have one, and splitting
    them leaves no more labels than there were: the same labels come back in other combinations.
    So ``New York, NY`` and ``Boston, MA`` are names, ``action|drama`` beside ``drama`` is two.

    Args:
      counts: how many examples have each label.
      examples: how many there are.

    Example:
      >>> combined({"action|drama": 5, "drama": 9, "action": 7}, 21).separator
      '|'
      >>> combined({"New York, NY": 5, "Boston, MA": 9}, 14) is None
      True
    """
    best: Combined | None = None
    for separator in SEPARATORS:
        inside = [label for label in counts if separator in label]
        if not inside:
            continue
        apart = {part.strip() for label in counts for part in label.split(separator)} - {""}
        held = sum(counts[label] for label in inside)
        if held < LEAST_SHARE * examples or len(apart) > len(counts) or len(apart) < 2:
            continue
        inside.sort(key=lambda label: (-counts[label], label))
        found = Combined(separator, tuple(inside), len(apart), held)
        best = found if best is None or found.apart < best.apart else best
    if best is not None:
        return best
    if len(counts) >= LEAST_CLASSES and len(counts) > UNIQUE * examples:
        return Combined(None, tuple(counts), len(counts), examples)
    return None


def remedy(found: Combined, delimiter: str | None) -> str:
    """Returns the key to set, as a sentence.

    Args:
      found: what looks like several labels.
      delimiter: ``data.label_delimiter`` as it is.
    """
    if found.separator is None:
        what = "data.label_delimiter splits texts that hold several labels"
        return f"{what}; data.target names another column."
    now = "" if delimiter is None else f", where {delimiter!r} is set now"
    return f"data.label_delimiter={found.separator!r} splits them into {found.apart} labels{now}."


def combined_note(labels: Iterable[str], examples: int, delimiter: str | None) -> Note | None:
    """Returns what is to be said of labels that look like several in one, if they do.

    Args:
      labels: of all examples.
      examples: how many there are.
      delimiter: ``data.label_delimiter``.
    """
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    found = combined(counts, examples)
    if found is None:
        return None
    what = f"each of {len(counts):,} texts as one label, nearly every example having its own"
    if found.separator is not None:
        what = f"each text with {found.separator!r} in it as one label"
    places = tuple(repr(label[:40]) for label in found.labels[:MOST_TOLD])
    if len(found.labels) > MOST_TOLD:
        places = (*places, f"and {len(found.labels) - MOST_TOLD} more")
    return Note("guessed", what, found.examples, "examples", places, remedy(found, delimiter))
