"""How often each byte comes in an image's channels, and what a table says of each byte.

A TPU counts and looks up one place after the other; comparing every pixel with every byte, it does
many at once. The numbers are the same.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

BYTE = 255
"""The largest byte: posterizing and equalizing see images as bytes."""
LEVELS = BYTE + 1


def counted(values: Int[Array, "n pixels c"]) -> Float[Array, "n c levels"]:
    """Returns how often each byte comes in each channel of each image."""
    return lax.platform_dependent(values, tpu=counted_by_comparing, default=_counted)


def looked_up(
    table: Float[Array, "n c levels"], values: Int[Array, "n pixels c"]
) -> Float[Array, "n pixels c"]:
    """Returns what a table of each channel says of each byte."""
    return lax.platform_dependent(table, values, tpu=looked_up_by_comparing, default=_looked_up)


def counted_by_comparing(values: Int[Array, "n pixels c"]) -> Float[Array, "n c levels"]:
    """Computes `counted` without a place that is written to."""
    same = values.swapaxes(1, 2)[..., None] == jnp.arange(LEVELS)
    return same.sum(2, dtype=jnp.float32)


def looked_up_by_comparing(
    table: Float[Array, "n c levels"], values: Int[Array, "n pixels c"]
) -> Float[Array, "n pixels c"]:
    """Computes `looked_up` without a place that is read from."""
    same = values[..., None] == jnp.arange(LEVELS)
    return jnp.where(same, table[:, None], 0.0).sum(-1)


def _counted(values: Int[Array, "n pixels c"]) -> Float[Array, "n c levels"]:
    n, _, c = values.shape
    empty, places = jnp.zeros(c * LEVELS), _side_by_side(values)
    counts = jax.vmap(lambda at: empty.at[at].add(1, mode="promise_in_bounds"))(places)
    return counts.reshape(n, c, LEVELS)


def _looked_up(
    table: Float[Array, "n c levels"], values: Int[Array, "n pixels c"]
) -> Float[Array, "n pixels c"]:
    return jax.vmap(lambda row, at: row.at[at].get(mode="promise_in_bounds"))(
        table.reshape(len(table), -1), _side_by_side(values)
    ).reshape(values.shape)


def _side_by_side(values: Int[Array, "n pixels c"]) -> Int[Array, "n places"]:
    """Places in one table of an image, each channel's after the one before."""
    return (values + LEVELS * jnp.arange(values.shape[-1])).reshape(len(values), -1)
