"""Wide and deep learning over tables: a linear model of categories, and a network beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdlopt.config import Choice, Count, Rate, Scalar
from jdlopt.errors import ConfigError, listing, nearest
from jdlopt.models.embedding import EMBEDDING_INIT, check_rows, numbers_and_codes, width_of
from jdlopt.models.layers import ACTIVATIONS, INITIALIZERS, REMAT, Head

SEPARATOR = "*"
"""What stands between the columns of a cross."""


def crossed(
    codes: Sequence[Int[Array, " n"]], sizes: Sequence[int], buckets: int
) -> Int[Array, " n"]:
    """Returns one index for each row's combination of codes.

    Where there are no more combinations than buckets, each has an index of its own. Otherwise
    the index is a hash, and some combinations share one. Weinberger et al., "Feature Hashing for
    Large Scale Multitask Learning", 2009.

    Args:
      codes: a column each, from 0 up to its size.
      sizes: how many codes each column may have.
      buckets: the most indices.

    Returns:
      Indices, less than ``min(buckets, product of sizes)``.

    Example:
      >>> codes = [jnp.array([0, 1, 1]), jnp.array([2, 0, 2])]
      >>> crossed(codes, (2, 3), 100).tolist()
      [2, 3, 5]
      >>> max(crossed(codes, (2, 3), 4).tolist()) < 4
      True
    """
    if math.prod(sizes) <= buckets:
        index = jnp.zeros_like(codes[0])
        for code, size in zip(codes, sizes, strict=True):
            index = index * size + code
        return index
    hashed = jnp.zeros(codes[0].shape, jnp.uint32)
    for code in codes:
        hashed = _mixed(hashed * jnp.uint32(0x9E3779B1) + code.astype(jnp.uint32) + 1)
    return (hashed % buckets).astype(jnp.int32)


def _mixed(x: Array) -> Array:
    # the remainder keeps the low bits: each bit must reach them. The last step of MurmurHash3
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


class Wide(nn.Module):
    """A linear model: a weight for each category, each cross of categories, and each number."""

    num_outputs: int
    sizes: tuple[int, ...]
    crosses: tuple[tuple[int, ...], ...]
    buckets: int

    @nn.compact
    def __call__(
        self, numbers: Float[Array, "n numbers"], codes: Int[Array, "n columns"]
    ) -> Float[Array, "n num_outputs"]:
        """Adds the weights up; a category's is a row of its column's table."""
        zeros = nn.initializers.zeros
        logits = self.param("bias", zeros, (self.num_outputs,))
        if numbers.shape[1]:
            kernel = self.param("kernel", zeros, (numbers.shape[1], self.num_outputs))
            logits = logits + numbers.astype(kernel.dtype) @ kernel
        for index, size in enumerate(self.sizes):
            table = self.param(f"column_{index}", zeros, (size, self.num_outputs))
            logits = logits + table[codes[:, index]]
        for index, places in enumerate(self.crosses):
            sizes = [self.sizes[place] for place in places]
            rows = min(math.prod(sizes), self.buckets)
            table = self.param(f"cross_{index}", zeros, (rows, self.num_outputs))
            together = crossed([codes[:, place] for place in places], sizes, self.buckets)
            logits = logits + table[together]
        return jnp.broadcast_to(logits, (numbers.shape[0], self.num_outputs))


class Deep(nn.Module):
    """Dense layers over the numbers and an embedding of each category."""

    num_outputs: int
    sizes: tuple[int, ...]
    embedding_features: int
    features: tuple[int, ...]
    activation: str
    initializer: str
    dropout_rate: Scalar | None
    batch_norm: bool
    remat: str

    @nn.compact
    def __call__(
        self, numbers: Float[Array, "n numbers"], codes: Int[Array, "n columns"], train: bool
    ) -> Float[Array, "n num_outputs"]:
        """Looks the categories up and runs the layers."""
        vectors = []
        for index, size in enumerate(self.sizes):
            shape = (size, width_of(size, self.embedding_features))
            table = self.param(f"column_{index}", EMBEDDING_INIT, shape)
            vectors.append(table[codes[:, index]])
        if vectors:
            numbers = numbers.astype(vectors[0].dtype)
        return Head(
            self.num_outputs,
            self.features,
            self.activation,
            self.initializer,
            self.dropout_rate,
            self.batch_norm,
            self.remat,
            name="head",
        )(jnp.concatenate([numbers, *vectors], axis=1), train)


class WideAndDeep(nn.Module):
    """A linear model that remembers and a network that generalises, trained as one: for tables.

    Both see the table's numbers and categories; their logits are summed. The wide part has a
    weight for each category and for each combination in ``crosses``, such as
    ``("education*occupation",)``; the deep part embeds each category. The crosses need
    ``data.preprocess.encode='embedding'``; any other encoding is numbers to both parts. Parameters
    are under ``wide/`` and ``deep/``, so that ``optim.groups`` gives each part an optimizer of its
    own. Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016.
    """

    num_outputs: int
    crosses: tuple[str, ...] = ()
    cross_buckets: Count = 1000
    embedding_features: Count = 32
    features: tuple[int, ...] = (128, 64)
    activation: Annotated[str, Choice(ACTIVATIONS)] = "relu"
    initializer: Annotated[str, Choice(INITIALIZERS)] = "he_normal"
    dropout_rate: Rate | None = None
    batch_norm: bool = False
    remat: Annotated[str, Choice(REMAT)] = "none"
    column_sizes: tuple[int, ...] = ()
    column_names: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "n columns"], train: bool = False
    ) -> Float[Array, "n num_outputs"]:
        """Maps rows of a table to outputs.

        Raises:
          ConfigError: the inputs are no rows, or a cross names what can't be crossed.
        """
        check_rows(inputs, "wide_and_deep")
        crosses = places_of(self.crosses, self.column_sizes, self.column_names)
        numbers, codes = numbers_and_codes(inputs, self.column_sizes)
        sizes = tuple(count + 1 for count in self.column_sizes if count)
        wide = Wide(self.num_outputs, sizes, crosses, self.cross_buckets, name="wide")
        deep = Deep(
            self.num_outputs,
            sizes,
            self.embedding_features,
            self.features,
            self.activation,
            self.initializer,
            self.dropout_rate,
            self.batch_norm,
            self.remat,
            name="deep",
        )
        return wide(numbers, codes) + deep(numbers, codes, train)


def places_of(
    crosses: Sequence[str], sizes: Sequence[int], names: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Returns where, among the columns of categories, those of each cross stand.

    Args:
      crosses: columns' names joined by `SEPARATOR`.
      sizes: for each column of the table the number of its categories, 0 for numbers.
      names: the columns' names.

    Raises:
      ConfigError: there are no codes to cross, a column is unknown or holds numbers, or a cross
        is not of two or more different columns.

    Example:
      >>> places_of(("job*town",), (3, 0, 2), ("town", "age", "job"))
      ((1, 0),)
    """
    if crosses and not any(sizes):
        raise ConfigError(
            "model.crosses: the model gets no categories to cross. Set "
            "data.preprocess.encode='embedding' for a table that has columns of categories; "
            "data.categorical=('NAME', …) makes categories of numbers."
        )
    with_categories = [name for name, size in zip(names, sizes, strict=False) if size]

    def place(name: str, cross: str) -> int:
        if name in with_categories:
            return with_categories.index(name)
        if name in names:
            raise ConfigError(
                f"model.crosses: {cross!r}: the column {name!r} holds numbers, which can't be "
                f"crossed. data.categorical=({name!r},) makes categories of them."
            )
        raise ConfigError(
            f"model.crosses: {cross!r}: there is no column {name!r}."
            f"{nearest(name, with_categories)} Columns of categories: {listing(with_categories)}."
        )

    found = []
    for cross in crosses:
        parts = [part.strip() for part in cross.split(SEPARATOR)]
        if len(parts) < 2 or len(set(parts)) < len(parts) or "" in parts:
            raise ConfigError(
                f"model.crosses: {cross!r} is no cross; expected two or more different columns "
                "joined by '*', such as 'education*occupation'."
            )
        found.append(tuple(place(part, cross) for part in parts))
    if len({frozenset(places) for places in found}) < len(found):
        raise ConfigError(f"model.crosses: {listing(crosses)}: the same columns twice.")
    return tuple(found)
