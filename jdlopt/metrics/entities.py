"""Entities of BIO tags, as the CoNLL shared tasks count them (the script ``conlleval``).

An entity begins at a ``B-`` tag, and at an ``I-`` tag that follows ``O``, another kind, or nothing.
It is right if its first word, its last word and its kind are. Tjong Kim Sang and De Meulder,
"Introduction to the CoNLL-2003 shared task", 2003.

Tags are numbered as `jdlopt.data.tags` numbers them: 0 is ``O``, 2k + 1 and 2k + 2 are ``B-`` and
``I-`` of the k-th kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jdlopt.data.coding import PAD
from jdlopt.metrics.scores import Split, Value, f1, precision, recall

RIGHT, TRUE, PREDICTED = 0, 1, 2
"""What `counted` counts of each kind, in this order."""


class Chunks(NamedTuple):
    """The entities of sentences, by their first words.

    Attributes:
      begins: whether an entity begins at a word.
      kinds: the number of its kind; -1 outside of entities.
      ends: behind which word it ends.
    """

    begins: Bool[Array, "n words"]
    kinds: Int[Array, "n words"]
    ends: Int[Array, "n words"]


def chunks(tags: Int[Array, "n words"]) -> Chunks:
    """Returns the entities of sentences, whose tags stand side by side, padding behind them.

    Example:
      >>> found = chunks(jnp.array([[1, 2, 0, 4, 4, -1]]))  # B-0 I-0 O I-1 I-1
      >>> found.begins[0].nonzero()[0].tolist(), found.ends[0][jnp.array([0, 3])].tolist()
      ([0, 3], [2, 5])
    """
    words = tags.shape[1]
    inside = tags > 0
    kinds = jnp.where(inside, (tags - 1) // 2, -1)
    before = jnp.pad(kinds[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    begins = inside & ((tags % 2 == 1) | (kinds != before))
    places = jnp.where(begins | ~inside, jnp.arange(words), words)
    later = jnp.pad(places[:, 1:], ((0, 0), (0, 1)), constant_values=words)
    return Chunks(begins, kinds, lax.cummin(later, axis=1, reverse=True))


def side_by_side(
    tags: Int[Array, "n positions"], there: Bool[Array, "n positions"]
) -> Int[Array, "n positions"]:
    """Returns the tags of the positions that are words, moved together, `PAD` behind them."""
    order = jnp.argsort(~there, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(there, tags, PAD), order, axis=1)


def counted(
    predicted: Int[Array, "n positions"],
    targets: Int[Array, "n positions"],
    real: Bool[Array, "n"],
    kinds: int,
) -> Int[Array, "kinds 3"]:
    """Returns of each kind how many entities are right, true and predicted.

    Args:
      predicted: a tag at each position.
      targets: the true ones; `PAD` where there is no word.
      real: which sentences count.
      kinds: how many there are.
    """
    there = (targets >= 0) & real[:, None]
    true, guess = (chunks(side_by_side(tags, there)) for tags in (targets, predicted))
    right = true.begins & guess.begins & (true.kinds == guess.kinds) & (true.ends == guess.ends)

    def of_each(some: Bool[Array, "n words"], kind: Int[Array, "n words"]) -> Int[Array, "kinds"]:
        return jnp.bincount(jnp.where(some, kind, kinds).ravel(), length=kinds + 1)[:kinds]

    counts = (right, true.kinds), (true.begins, true.kinds), (guess.begins, guess.kinds)
    return jnp.stack([of_each(*one) for one in counts], axis=1)


def tokens_right(
    outputs: Float[Array, "n positions tags"],
    targets: Int[Array, "n positions"],
    real: Bool[Array, "n"],
) -> Int[Array, "2"]:
    """Returns how many words have the right tag, and how many there are."""
    there = (targets >= 0) & real[:, None]
    return jnp.stack([(there & (outputs.argmax(-1) == targets)).sum(), there.sum()])


def of_all(score: Callable[..., np.ndarray]) -> Callable[[Split], Value]:
    """Returns a score of right, true and predicted counts, of the entities of all kinds."""
    return lambda split: float(score(*split.leaves["entities"].sum(axis=0)))


def of_each_kind(score: Callable[..., np.ndarray]) -> Callable[[Split], Value]:
    """Returns the same of each kind, as a list in the order of their names."""
    return lambda split: score(*split.leaves["entities"].T).tolist()


def token_accuracy(split: Split) -> float:
    """Returns the share of words with the right tag."""
    right, words = split.leaves["tokens"]
    return float(right / words) if words else float("nan")


SCORES = {"precision": precision, "recall": recall, "f1": f1}
"""Of right, true and predicted counts; 0 where nothing is predicted, or true."""
