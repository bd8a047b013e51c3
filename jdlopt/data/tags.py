"""BIO tags: how the words of a sentence say where entities begin and go on, as numbers.

A word's tag is ``O`` outside of entities, ``B-KIND`` where one begins and ``I-KIND`` where it goes
on. The number of ``O`` is 0, and those of the k-th kind, in sorted order from 0, are 2k + 1 and
2k + 2, whether both occur or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32

from jdlopt.data.coding import PAD, Coder, Coding
from jdlopt.errors import DataError, listing, nearest

TASK = "token_classification"
OUTSIDE = "O"
_ENTITY = re.compile(r"([BI])-(\S.*)", re.DOTALL)


def problem(tag: object) -> str | None:
    """Says what is wrong with a tag, or None."""
    if isinstance(tag, str) and (tag == OUTSIDE or _ENTITY.fullmatch(tag)):
        return None
    return f"holds the tag {tag!r:.60}; expected O, B-KIND or I-KIND, such as B-PER"


def kinds_in(tags: Iterable[str]) -> tuple[str, ...]:
    """Returns the kinds of entities that tags name, sorted."""
    return tuple(sorted({tag[2:] for tag in tags if tag != OUTSIDE}))


def names_of(kinds: Iterable[str]) -> tuple[str, ...]:
    """Returns the tags of some kinds, in the order of their numbers.

    Example:
      >>> names_of(("LOC", "PER"))
      ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    """
    return (OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI"))


def kinds_of(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the kinds whose tags these are, as `names_of` has them."""
    return tuple(name[2:] for name in names[1::2])


def as_rows(tags: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns lists of tags, maybe of different lengths, as an array of them [sentences]."""
    rows = np.empty(len(tags), object)
    rows[:] = [tuple(one) for one in tags] if len(tags) else []
    return rows


def _infer(values: np.ndarray, what: str, names: Sequence[str], delimiter: str | None) -> Coding:
    """Returns the coding of tags: those of every kind that occurs; its shape is not known yet."""
    if delimiter is not None:
        raise DataError(
            f"data.label_delimiter: stands between labels of one text; {what} holds a tag a word. "
            "Leave it out."
        )
    for row, tags in enumerate(values, start=1):
        for tag in tags:
            wrong = problem(tag)
            if wrong:
                raise DataError(f"{what}: row {row} {wrong}.")
    kinds = kinds_in(tag for tags in values for tag in tags)
    if not kinds:
        raise DataError(f"{what}: no word has another tag than O; there is nothing to learn.")
    return Coding(TASK, names_of(kinds), positions=1)


def _encode(values: np.ndarray, coding: Coding, what: str) -> Int32[np.ndarray, "n positions"]:
    """Returns the number of each tag, `PAD` behind the last; an empty tag is `PAD`, too."""
    number = {name: place for place, name in enumerate(coding.class_names)}
    longest = coding.shape[0] if coding.shape else max(map(len, values), default=0)
    codes = np.full((len(values), longest), PAD, np.int32)
    for row, tags in enumerate(values):
        for place, tag in enumerate(tags[:longest]):
            if tag and tag not in number:
                raise DataError(f"{what}: row {row + 1}: {unknown(tag, coding.class_names)}.")
            codes[row, place] = number[tag] if tag else PAD
    return codes


def unknown(tag: str, names: Sequence[str]) -> str:
    """Says that no training sentence has a tag's kind."""
    kinds = kinds_of(names)
    return (
        f"the tag {tag!r} is of a kind that no training sentence has.{nearest(tag[2:], kinds)} "
        f"Known kinds: {listing(kinds)}"
    )


CODER = Coder(_infer, _encode)
"""How the tags of sentences are coded: an array [sentences] of sequences of them."""
