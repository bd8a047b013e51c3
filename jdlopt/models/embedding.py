"""Embeddings before a model: of token ids, and of the categories in a table's columns."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PyTree

from jdlopt.errors import ConfigError
from jdlopt.models.bridge import Model

EMBEDDING_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
"""Each entry has variance 1 / features, as in Flax's own Embed."""


def width_of(size: int, features: int) -> int:
    """Returns the width of the embedding of a column: ``min(features, ⌈size / 2⌉)``.

    Args:
      size: how many codes the column may have, that of unknown categories among them.
      features: the most.
    """
    return min(features, -(-size // 2))


def check_rows(inputs: Num[Array, "n *shape"], model: str) -> None:
    """Raises a `ConfigError` where what a model of tables gets is no rows.

    Args:
      inputs: a batch.
      model: what the config calls the model.
    """
    if inputs.ndim != 2:
        raise ConfigError(
            f"model.name {model!r} takes the rows of a table; the data's inputs have shape "
            f"{inputs.shape[1:]}. Use 'mlp' for any shape."
        )


def numbers_and_codes(
    inputs: Float[Array, "n columns"], columns: tuple[int, ...]
) -> tuple[Float[Array, "n numbers"], Int[Array, "n codes"]]:
    """Returns a table's numbers, and the codes of its categories; a missing one is 0, as unknown.

    Args:
      inputs: numbers first, then a code for each categorical column, then the columns that
        preprocessing appended, which are numbers too.
      columns: the number of categories of each column that has any, 0 for the others.

    Raises:
      ConfigError: the inputs are too few to hold the columns.

    Example:
      >>> numbers, codes = numbers_and_codes(jnp.array([[0.5, 2.0, 1.0]]), (3, 0))
      >>> numbers.tolist(), codes.tolist()
      ([[0.5, 1.0]], [[2]])
    """
    if inputs.shape[1] < len(columns):
        raise ConfigError(
            f"model: the inputs have {inputs.shape[1]} columns, fewer than the table's "
            f"{len(columns)}: category codes can't be projected. Leave data.preprocess.pca out."
        )
    first = sum(count == 0 for count in columns)
    numbers = jnp.concatenate([inputs[:, :first], inputs[:, len(columns) :]], axis=1)
    codes = inputs[:, first : len(columns)]
    return numbers, jnp.where(jnp.isnan(codes), 0, codes).astype(jnp.int32)


def embedded(model: Model, *, tokens: int, columns: tuple[int, ...], features: int) -> Model:
    """Returns a model that looks its inputs up in learnt tables, and hands them to another one.

    Token ids [n, positions] become [n, positions, features]; padding, id 0, becomes zeros. A row of
    a table is numbers first, then a code for each categorical column: the numbers stay, each code
    becomes ``min(features, ⌈(categories + 1) / 2⌉)`` numbers. After Guo and Berkhahn, "Entity
    Embeddings of Categorical Variables", 2016.

    Args:
      model: what takes the embedded inputs.
      tokens: the size of the vocabulary; 0 for a table.
      columns: the number of categories of each column that has any, 0 for the others.
      features: the width of an embedding.
    """
    sizes = [count + 1 for count in columns if count]
    widths = [width_of(size, features) for size in sizes]

    def tables(key: Array) -> dict[str, Float[Array, "size features"]]:
        if tokens:
            return {"tokens": EMBEDDING_INIT(key, (tokens, features))}
        keys = jax.random.split(key, len(sizes))
        return {
            f"column_{index}": EMBEDDING_INIT(keys[index], (size, width))
            for index, (size, width) in enumerate(zip(sizes, widths))
        }

    def look_up(found: Mapping[str, Array], inputs: Num[Array, "n *shape"]) -> Array:
        if tokens:
            vectors = found["tokens"][inputs]
            return jnp.where((inputs == 0)[..., None], 0.0, vectors)
        numbers, codes = numbers_and_codes(inputs, columns)
        parts = [found[f"column_{index}"][codes[:, index]] for index in range(len(sizes))]
        return jnp.concatenate([numbers.astype(parts[0].dtype), *parts], axis=1)

    def init(key: Array, inputs: PyTree[Array], hparams: PyTree) -> tuple[PyTree, PyTree]:
        table_key, model_key = jax.random.split(key)
        found = tables(table_key)
        params, state = model.init(model_key, look_up(found, inputs), hparams)
        return {"embedding": found, "model": params}, state

    def apply(
        params: PyTree, state: PyTree, inputs: PyTree[Array], hparams: PyTree, **options: object
    ) -> tuple[Array, PyTree]:
        inputs = look_up(params["embedding"], inputs)
        return model.apply(params["model"], state, inputs, hparams, **options)

    return Model(init, apply)
