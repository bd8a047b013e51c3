"""Augmentation of text: tokens dropped, swapped with a neighbour, or replaced by a synonym.

A batch is token ids, int32 [n, tokens]. Padding is never touched and stays where it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from jdlopt.data.augment.part import Augmentation
from jdlopt.errors import DataError

PADDING = 0
UNKNOWN = 1

Strength = Float[Array, ""]
Tokens = Int32[Array, "n tokens"]


def token_dropout(key: Key[Array, ""], ids: Tokens, strength: Strength) -> Tokens:
    """Replaces each token by the unknown one with a probability; the others keep their places.

    Iyyer et al., "Deep unordered composition rivals syntactic methods for text classification",
    2015, drop words; Bowman et al., "Generating sentences from a continuous space", 2016, put the
    unknown word in their place, as here.

    Args:
      key: a random key, used once.
      ids: a batch of token ids.
      strength: the probability.
    """
    dropped = jax.random.uniform(key, ids.shape) < strength
    return jnp.where(dropped & (ids != PADDING), UNKNOWN, ids)


def token_swap(key: Key[Array, ""], ids: Tokens, strength: Strength) -> Tokens:
    """Swaps neighbours: pairs up each text's tokens and swaps each pair with a probability.

    The pairs start at the first or at the second token, as often the one as the other.

    After Wei and Zou, "EDA: easy data augmentation techniques for boosting performance on text
    classification tasks", 2019, who swap any two tokens.

    Args:
      key: a random key, used once.
      ids: a batch of token ids.
      strength: the probability.
    """
    phase_key, swap_key = jax.random.split(key)
    phases = jax.random.bernoulli(phase_key, 0.5, ids.shape[:1])
    pairs = (jnp.arange(ids.shape[1]) % 2 == 0) ^ phases[:, None]
    return swapped(ids, pairs & (jax.random.uniform(swap_key, ids.shape) < strength))


def swapped(ids: Tokens, firsts: Bool[Array, "n tokens"]) -> Tokens:
    """Returns the ids with each marked token and the next one swapped, unless one is padding.

    Args:
      ids: a batch of token ids.
      firsts: marks the first token of each pair to swap; no two neighbours are both marked.

    Example:
      >>> ids = jnp.array([[5, 6, 7, 0]])
      >>> print(swapped(ids, jnp.array([[True, False, True, False]])))
      [[6 5 7 0]]
    """
    following = jnp.roll(ids, -1, axis=1).at[:, -1].set(PADDING)
    swap = firsts & (ids != PADDING) & (following != PADDING)
    second = jnp.roll(swap, 1, axis=1)  # the last token is never a first one
    return jnp.where(swap, following, jnp.where(second, jnp.roll(ids, 1, axis=1), ids))


def synonyms(
    key: Key[Array, ""], ids: Tokens, strength: Strength, *, table: Int32[Array, "vocabulary most"]
) -> Tokens:
    """Replaces each token that has synonyms by one of them with a probability.

    Zhang, Zhao and LeCun, "Character-level convolutional networks for text classification", 2015.

    Args:
      key: a random key, used once.
      ids: a batch of token ids; one beyond the table has no synonyms.
      strength: the probability.
      table: each token's synonyms, then padding, as `read_synonyms` returns it.
    """
    replace_key, choice_key = jax.random.split(key)
    table = jnp.asarray(table)
    choices = table.at[ids].get(mode="fill", fill_value=PADDING)
    number = (choices != PADDING).sum(axis=-1)
    drawn = jnp.floor(jax.random.uniform(choice_key, ids.shape) * number).astype(jnp.int32)
    chosen = jnp.take_along_axis(choices, drawn[..., None], axis=-1)[..., 0]
    replaced = (jax.random.uniform(replace_key, ids.shape) < strength) & (number > 0)
    return jnp.where(replaced & (ids != PADDING), chosen.astype(ids.dtype), ids)


def read_synonyms(
    path: str | os.PathLike[str], token_to_id: Mapping[str, int]
) -> Int32[np.ndarray, "vocabulary most"]:
    """Reads a file of synonyms: on each line a word, a tab, and its synonyms between spaces.

    Words and synonyms that the vocabulary lacks are left out, as are a word itself among its
    synonyms and empty lines. A word may have several lines, whose synonyms are joined.

    Args:
      path: a text file in UTF-8.
      token_to_id: the vocabulary; ids 0 and 1 mean padding and unknown.

    Returns:
      A row a token id: its synonyms' ids, then 0s.

    Raises:
      DataError: the file can't be read, a line is not of this form, or no word is left.
    """
    file = Path(path).expanduser()
    found: dict[int, dict[int, None]] = {}
    rows = 0
    for row, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        rows += 1
        word, tab, listed = line.partition("\t")
        word = word.strip()
        if not tab or not word or not listed.split():
            what = "no tab" if not tab else "no word before the tab" if not word else "no synonyms"
            raise DataError(
                f"{file}, row {row}: has {what}: {line.rstrip()!r}. Expected a word, a tab, and "
                "its synonyms with spaces between them."
            )
        token = token_to_id.get(word, UNKNOWN)
        ids = (token_to_id.get(synonym, UNKNOWN) for synonym in listed.split())
        if token > UNKNOWN:
            known = [id_ for id_ in ids if id_ > UNKNOWN and id_ != token]
            found.setdefault(token, {}).update(dict.fromkeys(known))
    most = max((len(others) for others in found.values()), default=0)
    if not most:
        raise DataError(
            f"{file}: none of its {rows} words has a synonym such that the vocabulary of "
            f"{len(token_to_id)} tokens has both. Are they spelt alike (lower case, language)?"
        )
    table = np.full((max(token_to_id.values()) + 1, most), PADDING, dtype=np.int32)
    for token, others in found.items():
        table[token, : len(others)] = list(others)
    return table


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not text in UTF-8: {error}. Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{file}: can't be read: {error.strerror}.") from error


TEXT = {
    "token_dropout": Augmentation(token_dropout, "probability that a token becomes unknown"),
    "token_swap": Augmentation(token_swap, "probability that a pair of neighbours is swapped"),
    "synonyms": Augmentation(synonyms, "probability that a token becomes one of its synonyms"),
}
"""Name → augmentation of token ids; `synonyms` needs its ``table`` as well."""
