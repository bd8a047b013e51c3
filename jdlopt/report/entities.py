"""Sentences with their entities marked, true against predicted, and how good each kind is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jdlopt.data import tags, text
from jdlopt.data.named import INPUT, by_name
from jdlopt.metrics import entities
from jdlopt.report.outcome import Outcome
from jdlopt.report.page import Table
from jdlopt.tasks.token_classification import Entity, entities_in

SENTENCES = 6
"""Sentences with a mistake that are shown, and so many without one."""
WORDS = 60
"""Words of a sentence that are shown."""


class Part(TypedDict):
    """Words of a sentence, in a row: ``kind`` of the entity that they are, or empty."""

    text: str
    kind: str
    right: bool


class Sentence(TypedDict):
    """A sentence, in parts as it is and as it is predicted."""

    name: str
    true: list[Part]
    predicted: list[Part]


def shown(outcome: Outcome) -> dict[str, object]:
    """Returns what the page's template shows of tagged sentences."""
    names, targets = outcome.spec.class_names, outcome.targets
    kinds = tags.kinds_of(names)
    guesses = outcome.outputs.argmax(-1)
    counts = np.asarray(
        entities.counted(
            jnp.asarray(guesses), jnp.asarray(targets), jnp.ones(len(targets), bool), len(kinds)
        )
    )
    wrong = np.flatnonzero(((targets >= 0) & (targets != guesses)).any(axis=1))
    right = np.setdiff1d(np.arange(len(targets)), wrong)
    marked = right[(targets[right] > 0).any(axis=1)]
    chosen = [*wrong[:SENTENCES].tolist(), *marked[:SENTENCES].tolist()]
    return {
        "entities": {
            "table": _by_kind(kinds, counts),
            "wrong": len(wrong),
            "of": len(targets),
            "sentences": [_sentence(outcome, row, guesses[row], kinds) for row in chosen],
        }
    }


def _by_kind(kinds: Sequence[str], counts: Int[np.ndarray, "kinds 3"]) -> Table:
    rows: list[list[object]] = []
    for kind, (right, true, predicted) in zip(kinds, counts.tolist(), strict=True):
        of = [float(score(right, true, predicted)) for score in entities.SCORES.values()]
        rows.append([kind, true, predicted, *of])
    rows.sort(key=lambda row: row[-1])  # type: ignore[arg-type,return-value]
    header = ["kind", "true", "predicted", "precision", "recall", "F1"]
    return Table("Entities of each kind, the lowest F1 first", header, rows)


def _sentence(
    outcome: Outcome, row: int, guesses: Int[np.ndarray, " positions"], kinds: Sequence[str]
) -> Sentence:
    ids, targets = by_name(outcome.inputs)[INPUT][row], outcome.targets[row]
    firsts = np.flatnonzero(targets >= 0)[:WORDS]
    words = _words(outcome, ids, firsts)
    true, found = (list(entities_in(codes[firsts].tolist())) for codes in (targets, guesses))
    return {
        "name": outcome.name(row),
        "true": _parts(words, true, found, kinds),
        "predicted": _parts(words, found, true, kinds),
    }


def _words(
    outcome: Outcome, ids: Int[np.ndarray, " tokens"], firsts: Int[np.ndarray, " words"]
) -> list[str]:
    """Returns the words of a row of tokens, from the first token of each to the next word's."""
    state = outcome.spec.input.text
    assert state is not None
    ends = [*firsts[1:].tolist(), len(ids)]
    rows = np.zeros((len(firsts), len(ids)), np.int32)
    for word, (first, end) in enumerate(zip(firsts.tolist(), ends, strict=True)):
        rows[word, : end - first] = ids[first:end]
    return [one.strip() for one in text.decode(state.state, rows)]


def _parts(
    words: Sequence[str], mine: Sequence[Entity], others: Sequence[Entity], kinds: Sequence[str]
) -> list[Part]:
    made: list[Part] = []
    at = 0
    for one in [*mine, Entity(-1, len(words), len(words))]:
        if at < one.first:
            made.append({"text": " ".join(words[at : one.first]), "kind": "", "right": True})
        if one.kind >= 0:
            within = " ".join(words[one.first : one.last + 1])
            made.append({"text": within, "kind": kinds[one.kind], "right": one in others})
        at = one.last + 1
    return made
