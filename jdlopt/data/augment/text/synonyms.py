"""Replacing tokens by their synonyms, which a file lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key

from jdlopt import writing
from jdlopt.config import Scalar
from jdlopt.data.augment.augmentation import (
    PADDING,
    UNKNOWN,
    Augmentation,
    Tokens,
)
from jdlopt.errors import ConfigError, DataError


def synonyms(
    key: Key[Array, ""], ids: Tokens, strength: Scalar, *, table: Int32[Array, "vocabulary most"]
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


def of_file(
    vocabulary: Mapping[str, int] | None, *, synonyms_file: str | None = None
) -> Callable[..., Tokens]:
    """Returns `synonyms` with the table of a file.

    Args:
      vocabulary: token → id.
      synonyms_file: the file of ``synonyms``: on each line a word, a tab, and its synonyms.

    Raises:
      ConfigError: the inputs have no vocabulary, or no file is named.
      DataError: the file can't be used.
    """
    if vocabulary is None or synonyms_file is None:
        lacking = "the inputs have no vocabulary of words" if synonyms_file else "no file is named"
        raise ConfigError(f"data.augment.synonyms: {lacking}.")
    return partial(synonyms, table=jnp.asarray(read_synonyms(synonyms_file, vocabulary)))


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
    file = writing.expanded(path)
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


SYNONYMS = Augmentation(
    name="synonyms",
    apply=synonyms,
    stage="raw",
    strength="probability that a token becomes one of its synonyms",
    high=1.0,
    first=(0.1,),
    fits=("tokens",),
    source="Wei and Zou, EDA, 2019",
    prior=0.2,
    prepare=of_file,
    requires=("synonyms_file",),
)
