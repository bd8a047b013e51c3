"""Embeddings before a model: of token ids, and of the categories in a table's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from jdlopt.models.bridge import Model

_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
"""Each entry has variance 1 / features, as in Flax's own Embed."""


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
    widths = [min(features, -(-size // 2)) for size in sizes]

    def tables(key: Array) -> dict[str, Float[Array, "size features"]]:
        if tokens:
            return {"tokens": _INIT(key, (tokens, features))}
        keys = jax.random.split(key, len(sizes))
        return {
            f"column_{index}": _INIT(keys[index], (size, width))
            for index, (size, width) in enumerate(zip(sizes, widths))
        }

    def look_up(found: Mapping[str, Array], inputs: Num[Array, "n *shape"]) -> Array:
        if tokens:
            vectors = found["tokens"][inputs]
            return jnp.where((inputs == 0)[..., None], 0.0, vectors)
        numbers = inputs[:, : len(columns) - len(sizes)]
        extra = inputs[:, len(columns) :]  # columns that preprocessing appended
        codes = inputs[:, len(columns) - len(sizes) : len(columns)]
        codes = jnp.where(jnp.isnan(codes), 0, codes).astype(jnp.int32)
        parts = [found[f"column_{index}"][codes[:, index]] for index in range(len(sizes))]
        others = [part.astype(parts[0].dtype) for part in (numbers, extra)]
        return jnp.concatenate([*others, *parts], axis=1)

    def init(key: Array, inputs: Array, hparams: Mapping[str, Any]) -> tuple[PyTree, PyTree]:
        table_key, model_key = jax.random.split(key)
        found = tables(table_key)
        params, state = model.init(model_key, look_up(found, inputs), hparams)
        return {"embedding": found, "model": params}, state

    def apply(
        params: PyTree, state: PyTree, inputs: Array, hparams: Mapping[str, Any], **options: Any
    ) -> tuple[Array, PyTree]:
        inputs = look_up(params["embedding"], inputs)
        return model.apply(params["model"], state, inputs, hparams, **options)

    return Model(init, apply)
