"""Token classification: a BIO tag for each word of a sentence, which together name entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jdlopt.data import tags, words
from jdlopt.data.coders import CODERS
from jdlopt.data.coding import PAD
from jdlopt.data.spec import DataSpec
from jdlopt.tasks.positions import share_right
from jdlopt.tasks.task import Columns, Decoded, Task


class Entity(NamedTuple):
    """An entity of a sentence.

    Attributes:
      kind: the number of its kind.
      first, last: its words.
    """

    kind: int
    first: int
    last: int


def entities_in(codes: Sequence[int]) -> Iterator[Entity]:
    """Yields the entities of a sentence, as `jdlopt.metrics.entities` counts them.

    Args:
      codes: the number of each word's tag.

    Example:
      >>> list(entities_in([1, 2, 0, 4]))
      [Entity(kind=0, first=0, last=1), Entity(kind=1, first=3, last=3)]
    """
    begun: Entity | None = None
    for place, code in enumerate(codes):
        kind = (code - 1) // 2 if code > 0 else None
        if begun is not None and kind == begun.kind and code % 2 == 0:
            begun = begun._replace(last=place)
            continue
        if begun is not None:
            yield begun
        begun = None if kind is None else Entity(kind, place, place)
    if begun is not None:
        yield begun


def width(spec: DataSpec, loss: str) -> int:
    """Returns one output a tag."""
    return spec.num_classes


def measured(outputs: Array, targets: Array) -> dict[str, Float[Array, ""]]:
    """Returns the share of a batch's words whose tag is right."""
    return {"token_accuracy": share_right(outputs, targets)}


def decode(outputs: np.ndarray, probabilities: np.ndarray | None, spec: DataSpec) -> Decoded:
    """Returns the likeliest tag at each position; which are words, only the texts tell."""
    return Decoded(outputs.argmax(-1).astype(np.int32), None)


def columns(decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec) -> Columns:
    """Returns the tags of all positions in one text."""
    names = np.array(spec.class_names, object)
    return {"prediction": [" ".join(names[row]) for row in decoded.values]}


def told(targets: np.ndarray, spec: DataSpec) -> list[str]:
    """Returns the entities of targets in words, by the numbers of their words from 1 on."""
    kinds = tags.kinds_of(spec.class_names)
    said = []
    for row in targets:
        found = [
            f"{kinds[one.kind]}: word {one.first + 1}"
            + (f" to {one.last + 1}" if one.last > one.first else "")
            for one in entities_in(row[row != PAD].tolist())
        ]
        said.append(", ".join(found) or "no entity")
    return said


def of_texts(
    decoded: Decoded, probabilities: np.ndarray | None, spec: DataSpec, texts: Sequence[Any]
) -> tuple[Decoded, Columns]:
    """Returns the entities of texts: the text, kind and place of each, and how sure it is.

    ``start`` and ``end`` count the text's characters, as a slice does; the probability is that of
    the least likely of its words' tags.
    """
    assert probabilities is not None and spec.input.text is not None
    kinds = tags.kinds_of(spec.class_names)
    cuts = [words.cut(one) for one in texts]
    firsts = words.encode(spec.input.text.state, [one.words for one in cuts]).firsts
    labels: list[str] = []
    found: list[list[dict[str, object]]] = []
    for one, first, codes, shares in zip(cuts, firsts, decoded.values, probabilities, strict=True):
        # a word that was cut off, or has no token, has no entity
        of_words = np.where(first >= 0, codes[first], 0)
        sure = np.where(first >= 0, shares[first, codes[first]], 1.0)
        made: list[dict[str, object]] = []
        for entity in entities_in(of_words.tolist()):
            chosen = slice(entity.first, entity.last + 1)
            start, end = one.spans[entity.first][0], one.spans[entity.last][1]
            made.append({
                "text": one.text[start:end], "kind": kinds[entity.kind], "start": start, "end": end,
                "probability": float(sure[chosen].min()),
            })  # fmt: skip
        found.append(made)
        labels.append(", ".join(f"{one['text']} ({one['kind']})" for one in made))
    return Decoded(decoded.values, labels), {"prediction": labels, "entities": found}


TOKEN_CLASSIFICATION = Task(
    name=tags.TASK,
    coder=CODERS[tags.TASK],
    link="softmax",
    losses=("cross_entropy", "focal"),
    metrics=("entity_f1", "token_accuracy"),
    monitor="validation/entity_f1",
    judged="entity_f1",
    width=width,
    measured=measured,
    decode=decode,
    columns=columns,
    told=told,
    of_texts=of_texts,
    shows=frozenset({"entities"}),
)
