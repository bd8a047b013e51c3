"""Which weights stay: those above a quantile of their scores, or N of each M. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jdlopt.config import Scalar
from jdlopt.kernels.branches import largest_of_all

Key = TypeVar("Key")


def _ordered(scores: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Whole numbers that are ordered as the scores are."""
    bits = lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _threshold(
    below: Callable[[UInt32[Array, ""]], Int[Array, ""]], allowed: Int[Array, ""]
) -> UInt32[Array, ""]:
    """The largest number that at most ``allowed`` are below, found bit by bit.

    32 counts of what lies below a number, each one pass over the scores: no sort, no copy, and
    sharded arrays stay where they are.
    """

    def with_bit(index: Array, found: Array) -> Array:
        candidate = found | lax.shift_left(jnp.uint32(1), jnp.uint32(31) - index.astype(jnp.uint32))
        return jnp.where(below(candidate) <= allowed, candidate, found)

    return lax.fori_loop(0, 32, with_bit, jnp.zeros_like(allowed, jnp.uint32))


def _share(sparsity: Scalar, size: int) -> Int[Array, ""]:
    """How many of so many a sparsity takes."""
    count = jnp.round(jnp.asarray(sparsity, jnp.float32) * size).astype(jnp.int32)
    return jnp.clip(count, 0, size - 1)


def _kept(ordered: Sequence[UInt32[Array, "..."]], sparsity: Scalar) -> list[Bool[Array, "..."]]:
    """Which of some numbers are not among the smallest; of equal ones, the first ones go."""
    sizes = [one.size for one in ordered]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    places = [
        start + lax.iota(jnp.uint32, size).reshape(one.shape)
        for one, start, size in zip(ordered, starts, sizes, strict=True)
    ]
    count = _share(sparsity, sum(sizes))
    limit = _threshold(lambda limit: _sum(one < limit for one in ordered), count)
    left = count - _sum(one < limit for one in ordered)
    equal = [one == limit for one in ordered]

    def among_equal() -> UInt32[Array, ""]:
        return _threshold(
            lambda end: _sum(one & (place < end) for one, place in zip(equal, places, strict=True)),
            left,
        )

    # mostly none of the equal ones goes, and half of the work is spared
    none = jnp.zeros((), jnp.uint32)
    first = lax.cond(largest_of_all(left) > 0, among_equal, lambda: none)
    return [
        (one > limit) | (same & (place >= first))
        for one, same, place in zip(ordered, equal, places, strict=True)
    ]


def _sum(parts: Iterable[Bool[Array, "..."]]) -> Int[Array, ""]:
    return sum((jnp.sum(one, dtype=jnp.int32) for one in parts), jnp.int32(0))


def largest(
    scores: Mapping[Key, Float[Array, "..."]],
    sparsity: Scalar,
    *,
    by_layer: bool,
    stacked: Collection[Key] = (),
) -> dict[Key, Bool[Array, "..."]]:
    """Returns which scores are not among the smallest, a share ``sparsity`` of them.

    Args:
      scores: by layer; of equal ones, the first ones go.
      sparsity: the share that goes, in [0, 1); it may be traced. One score stays always.
      by_layer: whether it is a share of each layer's scores, or of all together.
      stacked: layers whose leading axis is one of layers.

    Example:
      >>> found = largest({"a": jnp.arange(4.0), "b": jnp.arange(2.0, 6)}, 0.5, by_layer=False)
      >>> found["a"].tolist(), found["b"].tolist()
      ([False, False, False, True], [False, True, True, True])
    """
    ordered = {key: _ordered(one) for key, one in scores.items()}
    if not by_layer:
        return dict(zip(ordered, _kept(list(ordered.values()), sparsity), strict=True))
    one_layer = partial(_kept, sparsity=sparsity)
    return {
        key: (jax.vmap(one_layer) if key in stacked else one_layer)([one])[0]
        for key, one in ordered.items()
    }


def n_of_m(
    scores: Float[Array, "*shape ins outs"], n: int, m: int
) -> Bool[Array, "*shape ins outs"]:
    """Returns which scores are among the ``n`` largest of ``m`` neighbours along the inputs.

    Example:
      >>> n_of_m(jnp.array([[4.0], [3.0], [1.0], [2.0]]), 1, 2).ravel().tolist()
      [True, False, False, True]
    """
    grouped = scores.reshape(*scores.shape[:-2], -1, m, scores.shape[-1])
    own, other = grouped[..., :, None, :], grouped[..., None, :, :]
    earlier = jnp.tri(m, k=-1, dtype=bool)[..., None]  # of equal ones, the first stays
    rank = jnp.sum((other > own) | ((other == own) & earlier), axis=-2)
    return (rank < n).reshape(scores.shape)
