"""What models of tables make of a row: embeddings of its numbers, vectors for its categories."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jdlopt.config import Scalar
from jdlopt.models.embedding import EMBEDDING_INIT, check_rows, numbers_and_codes, width_of

NUMERIC_EMBEDDINGS = ("none", "plr", "pbld")
"""Of each number: itself; a periodic embedding with a dense layer and ReLU (PLR); or itself beside
a dense layer of cosines with phases (PBLD)."""


class NumericEmbedding(nn.Module):
    """An embedding of each number of a row, every column with parameters of its own.

    ``plr``: ``ReLU(W [cos(2π c x), sin(2π c x)] + b)``. Gorishniy, Rubachev and Babenko, "On
    embeddings for numerical features in tabular deep learning", 2022. ``pbld``: x beside
    ``W cos(2π (c x + φ)) + b``. Holzmüller, Grinsztajn and Steinwart, "Better by default", 2024.
    The frequencies c start from a normal distribution of standard deviation ``sigma``.
    """

    kind: str
    frequencies: int
    features: int
    sigma: Scalar

    @nn.compact
    def __call__(self, numbers: Float[Array, "n columns"]) -> Float[Array, "n columns features"]:
        """Embeds numbers; the kind ``none`` returns each as one feature."""
        if self.kind == "none":
            return numbers[..., None]
        shape = (numbers.shape[1], self.frequencies)

        def drawn(key: PRNGKeyArray) -> Array:
            return self.sigma * jax.random.normal(key, shape)

        frequencies = self.param("frequencies", drawn)
        turns = numbers[..., None].astype(frequencies.dtype) * frequencies
        if self.kind == "plr":
            both = [jnp.cos(2 * jnp.pi * turns), jnp.sin(2 * jnp.pi * turns)]
            return jax.nn.relu(self._dense(jnp.concatenate(both, axis=-1), self.features))
        phases = self.param("phases", nn.initializers.uniform(1.0), shape)
        waves = jnp.cos(2 * jnp.pi * (turns + phases))
        if self.features == 1:
            return self._dense(waves, 1)
        numbers = numbers[..., None].astype(waves.dtype)
        return jnp.concatenate([numbers, self._dense(waves, self.features - 1)], axis=-1)

    def _dense(self, x: Float[Array, "n columns inputs"], features: int) -> Array:
        """A dense layer of its own for each column, as PyTorch starts one."""
        bound = x.shape[-1] ** -0.5

        def drawn(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        kernel = self.param("kernel", drawn, (x.shape[1], x.shape[2], features))
        bias = self.param("bias", drawn, (x.shape[1], features))
        return jnp.einsum("nci,cif->ncf", x, kernel) + bias


class Categories(nn.Module):
    """A vector for the category in each column: 0 and 1, -1 and 1 of two, or a learnt one."""

    sizes: tuple[int, ...]
    one_hot_up_to: int
    features: int

    @nn.compact
    def __call__(self, codes: Int[Array, "n columns"]) -> list[Float[Array, "n _"]]:
        """Looks codes up; 0, an unknown or missing category, is zeros where nothing is learnt."""
        found = []
        for index, count in enumerate(self.sizes):
            column = codes[:, index]
            if count > self.one_hot_up_to:
                shape = (count + 1, width_of(count + 1, self.features))
                table = self.param(f"column_{index}", EMBEDDING_INIT, shape)
                found.append(jnp.take(table, column, axis=0))
            elif count == 2:
                second, first = column == 2, column == 1
                found.append((second.astype(jnp.float32) - first.astype(jnp.float32))[:, None])
            else:
                found.append(jax.nn.one_hot(column - 1, count))
        return found


@runtime_checkable
class OfRows(Protocol):
    """The fields of a module of tables that say what it makes of a row.

    Attributes:
      column_sizes: the number of categories of each column that has any, 0 for the others.
      numeric_embedding: of `NUMERIC_EMBEDDINGS`.
      numeric_frequencies, numeric_features, numeric_sigma: those of a `NumericEmbedding`.
      one_hot_up_to: columns of more categories have an embedding.
      embedding_features: the most features of an embedding.
    """

    column_sizes: tuple[int, ...]
    numeric_embedding: str
    numeric_frequencies: int
    numeric_features: int
    numeric_sigma: Scalar
    one_hot_up_to: int
    embedding_features: int


def row_features(
    module: OfRows, inputs: Float[Array, "n columns"], model: str
) -> list[Float[Array, "n _"]]:
    """Returns a vector for each column of rows.

    To be called inside the module, which then holds ``numbers/`` and ``categories/``.

    Args:
      module: what the rows are for.
      inputs: a batch of rows.
      model: what the config calls the model, for messages.

    Raises:
      ConfigError: the inputs are no rows.
    """
    check_rows(inputs, model)
    numbers, codes = numbers_and_codes(inputs, module.column_sizes)
    found: list[Array] = []
    if numbers.shape[1]:
        numeric = NumericEmbedding(
            module.numeric_embedding,
            module.numeric_frequencies,
            module.numeric_features,
            module.numeric_sigma,
            name="numbers",
        )
        found += list(jnp.moveaxis(numeric(numbers), 1, 0))
    sizes = tuple(count for count in module.column_sizes if count)
    if sizes:
        categories = Categories(
            sizes, module.one_hot_up_to, module.embedding_features, name="categories"
        )
        found += categories(codes)
    return found
