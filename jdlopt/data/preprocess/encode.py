"""Categories as numbers: text to codes on the host, codes to model inputs as pure functions.

A table's matrix holds codes in its categorical columns: 1 … k for the k categories of the training
rows in sorted order, 0 for one that none of them has, NaN where the value is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.errors import ConfigError, DataError, listing, nearest

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Float32  # its Array imports jax

MOST_CATEGORIES = 1 << 24
"""float32 tells no more codes than these apart."""

UNKNOWN = "<unknown>"
"""How the place of unknown categories is named."""


def _is_missing(value: object) -> bool:
    return value is None or value != value


def categories(column: Sequence[object] | np.ndarray) -> tuple[str, ...]:
    """Returns a column's categories, sorted by code points: give it the training rows alone.

    Args:
      column: text, or what becomes text (numbers, booleans); None or NaN where it is missing.

    Raises:
      DataError: there are more categories than codes.

    Example:
      >>> categories(["red", "blue", None, "red"])
      ('blue', 'red')
    """
    found = {str(value) for value in column if not _is_missing(value)}
    if len(found) >= MOST_CATEGORIES:
        raise DataError(
            f"a categorical column has {len(found)} categories, expected fewer than "
            f"{MOST_CATEGORIES}. Is it an identifier? Leave it out with data.ignore."
        )
    return tuple(sorted(found))


def codes(
    column: Sequence[object] | np.ndarray, categories: Sequence[str]
) -> Float32[np.ndarray, " rows"]:
    """Returns a column's codes: 1 … k for the categories in order, 0 for others, NaN for missing.

    Example:
      >>> codes(["red", "green", None, "blue"], ("blue", "red")).tolist()
      [2.0, 0.0, nan, 1.0]
    """
    known = {category: code for code, category in enumerate(categories, start=1)}
    coded = [np.nan if _is_missing(value) else known.get(str(value), 0) for value in column]
    return np.array(coded, dtype=np.float32)


def buckets(column: Sequence[object] | np.ndarray, count: int) -> Float32[np.ndarray, " rows"]:
    """Returns the bucket, 1 … ``count``, that each value's hash falls into; NaN for missing.

    The hash is of the text alone, the same in every process and on every platform, so that a
    category that no training row has falls into a bucket of its own hash too.

    Args:
      column: text, or what becomes text; None or NaN where it is missing.
      count: the number of buckets.

    Reference:
      Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009.

    Example:
      >>> buckets(["red", None, "green", "red"], 8).tolist()
      [4.0, nan, 1.0, 4.0]
    """
    if not 1 <= count < MOST_CATEGORIES:
        raise ConfigError(
            f"data.preprocess: hashing into {count} buckets; expected 1 to {MOST_CATEGORIES - 1}."
        )
    known: dict[str, int] = {}
    hashed = np.full(len(column), np.nan, dtype=np.float32)
    for row, value in enumerate(column):
        if _is_missing(value):
            continue
        text = str(value)
        if text not in known:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            known[text] = 1 + int.from_bytes(digest, "big") % count
        hashed[row] = known[text]
    return hashed


# --- codes to model inputs ------------------------------------------------------------------------


def one_hot(
    values: Float[Array | np.ndarray, "n columns"], cardinalities: tuple[int, ...]
) -> Float[Array, "n outputs"]:
    """Returns the numeric columns in order, then a block of k + 1 columns for each categorical one.

    A block has a 1 in the place of the code, the first place being that of unknown categories;
    a missing code has none.

    Args:
      values: a batch.
      cardinalities: for each column the number k of its categories, 0 for a numeric one.

    Example:
      >>> one_hot(np.array([[2.0, 0.5], [0.0, 1.5]], "float32"), (2, 0)).tolist()
      [[0.5, 0.0, 0.0, 1.0], [1.5, 1.0, 0.0, 0.0]]
    """
    return _blocks(values, cardinalities, first=0)


def hashed(
    values: Float[Array | np.ndarray, "n columns"], cardinalities: tuple[int, ...]
) -> Float[Array, "n outputs"]:
    """Returns the numeric columns in order, then a block of a column a bucket for each other one.

    Args:
      values: a batch; what `buckets` returned in place of codes.
      cardinalities: for each column the number of buckets, 0 for a numeric one.

    Example:
      >>> hashed(np.array([[2.0, 0.5]], "float32"), (3, 0)).tolist()
      [[0.5, 0.0, 1.0, 0.0]]
    """
    return _blocks(values, cardinalities, first=1)


def _blocks(
    values: Float[Array | np.ndarray, "n columns"], cardinalities: tuple[int, ...], first: int
) -> Float[Array, "n outputs"]:
    import jax.numpy as jnp

    values = jnp.asarray(values, jnp.float32)
    blocks = [values[:, np.flatnonzero(np.array(cardinalities) == 0)]]
    for column, count in enumerate(cardinalities):
        if count:
            places = jnp.arange(first, count + 1, dtype=jnp.float32)
            # NaN equals no place, so that a missing code needs no care
            blocks.append((values[:, column, None] == places).astype(jnp.float32))
    return jnp.concatenate(blocks, axis=1)


def ordinal(
    values: Float[Array | np.ndarray, "n columns"], cardinalities: tuple[int, ...]
) -> Float[Array, "n columns"]:
    """Returns the columns as they are: a category's code is its number.

    Args:
      values: a batch.
      cardinalities: for each column the number of its categories, 0 for a numeric one.
    """
    import jax.numpy as jnp

    return jnp.asarray(values, jnp.float32)


def embedding(
    values: Float[Array | np.ndarray, "n columns"], cardinalities: tuple[int, ...]
) -> Float[Array, "n columns"]:
    """Returns the numeric columns in order, then the codes in order, for a model's embeddings.

    A model looks a code 0 … k up in a table of k + 1 rows. A missing code stays NaN.

    Args:
      values: a batch.
      cardinalities: for each column the number k of its categories, 0 for a numeric one.

    Reference:
      Guo and Berkhahn, "Entity Embeddings of Categorical Variables", 2016.

    Example:
      >>> embedding(np.array([[2.0, 0.5]], "float32"), (2, 0)).tolist()
      [[0.5, 2.0]]
    """
    import jax.numpy as jnp

    return jnp.asarray(values, jnp.float32)[:, _numbers_first(cardinalities)]


def _numbers_first(cardinalities: Sequence[int]) -> np.ndarray:
    return np.argsort(np.array(cardinalities) > 0, kind="stable")


ENCODINGS: dict[str, Callable[..., Any]] = {
    "one_hot": one_hot,
    "ordinal": ordinal,
    "hashed": hashed,
    "embedding": embedding,
}
"""What a matrix with codes becomes: ``(values, cardinalities) → model inputs``."""


def apply(
    values: Float[Array | np.ndarray, "n columns"], *, method: str, cardinalities: tuple[int, ...]
) -> Float[Array, "n outputs"]:
    """Returns what an encoding of `ENCODINGS` makes of values. Pure; nothing is fitted.

    Args:
      values: a batch.
      method: a name of `ENCODINGS`.
      cardinalities: for each column the number of its categories (of its buckets, if hashed), 0
        for a numeric one.

    Raises:
      ConfigError: the method is unknown.
    """
    return _known(method)(values, tuple(cardinalities))


def _known(method: str) -> Callable[..., Any]:
    if method not in ENCODINGS:
        raise ConfigError(
            f"data.preprocess.encode: {method!r} is unknown.{nearest(method, ENCODINGS)} "
            f"Known: {listing(ENCODINGS)}."
        )
    return ENCODINGS[method]


def output_size(method: str, cardinalities: Sequence[int]) -> int:
    """Returns the number of columns after `apply`.

    Example:
      >>> output_size("one_hot", (2, 0, 0))
      5
    """
    _known(method)
    extra = {"one_hot": 1, "hashed": 0}.get(method)
    if extra is None:
        return len(cardinalities)
    return sum(count + extra if count else 1 for count in cardinalities)


def output_names(
    names: Sequence[str],
    *,
    method: str,
    cardinalities: Sequence[int],
    categories: Sequence[Sequence[str]],
) -> tuple[str, ...]:
    """Returns a name for each column after `apply`.

    Args:
      names: the columns' names.
      method: a name of `ENCODINGS`.
      cardinalities: as for `apply`.
      categories: each column's categories; empty for a numeric column, and unused by ``hashed``.

    Example:
      >>> output_names(
      ...     ["colour", "size"], method="one_hot", cardinalities=(2, 0),
      ...     categories=[("blue", "red"), ()],
      ... )
      ('size', 'colour=<unknown>', 'colour=blue', 'colour=red')
    """
    _known(method)
    if method == "ordinal":
        return tuple(names)
    if method == "embedding":
        return tuple(names[index] for index in _numbers_first(cardinalities))
    named = [name for name, count in zip(names, cardinalities, strict=True) if not count]
    for index, count in enumerate(cardinalities):
        if not count:
            continue
        values = (
            [f"bucket {bucket}" for bucket in range(1, count + 1)]
            if method == "hashed"
            else [UNKNOWN, *categories[index]]
        )
        named += [f"{names[index]}={value}" for value in values]
    return tuple(named)
