"""A decoder as MaxText and AXLearn train them, as one pure function of shapes: for estimates alone.

RMS norms, rotary positions, causal attention with fewer heads of keys and values, a gated MLP of
three matrices, a head of its own; parameters in float32, arithmetic in bfloat16. Su et al.,
"RoFormer", 2021; Shazeer, "GLU variants improve transformer", 2020; Dao et al., "FlashAttention",
2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

KERNEL = "flash_attention"
BLOCK = 512
"""Positions in a block of attention; MaxText's recipes for v6e have 2,048 of 8,192."""
POLICIES: dict[str, Callable[..., Any]] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "qkv": jax.checkpoint_policies.save_only_these_names("query", "key", "value"),
    "qkv and out": jax.checkpoint_policies.save_only_these_names("query", "key", "value", "out"),
}
"""What the backward pass finds, by what the recipes call it; where, on the chip or its host, does
not matter to the arithmetic."""
RULES = (
    ("(query|key|value|gate|up)$", None, "tensor"),
    ("(out|down)$", "tensor", None),
    ("head$", None, "tensor"),
    ("tokens$", "tensor", None),
    ("norm",),
)


class Sizes(NamedTuple):
    """The sizes of a decoder."""

    layers: int
    width: int
    heads: int
    head: int
    mlp: int
    kv_heads: int
    vocabulary: int
    positions: int


def kernels(sizes: Sizes, block: int = BLOCK) -> dict[str, float]:
    """Returns the share of attention's blocks that its causal mask leaves, by kernel."""
    blocks = sizes.positions // block
    share = (blocks + 1) / (2 * blocks)
    return {f"{KERNEL}_{way}": share for way in ("forward", "backward")}


def shapes(sizes: Sizes) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the parameters' shapes; those of layers are stacked."""
    s, heads, keys = sizes, sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    layer = {
        "query": (s.width, heads),
        "key": (s.width, keys),
        "value": (s.width, keys),
        "out": (heads, s.width),
        "gate": (s.width, s.mlp),
        "up": (s.width, s.mlp),
        "down": (s.mlp, s.width),
        "norm_0": (s.width,),
        "norm_1": (s.width,),
    }
    whole = {"tokens": (s.vocabulary, s.width), "head": (s.width, s.vocabulary), "norm": (s.width,)}
    stacked = {f"layers/{name}": (s.layers, *shape) for name, shape in layer.items()}
    every = stacked | whole
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in every.items()}


def counted_flops(sizes: Sizes, batch: float) -> float:
    """Returns a step's FLOPs as MaxText counts them.

    Six for each token and parameter but the embedding, and attention as if it had no causal mask.
    """
    s = sizes
    layer = s.width * (2 * s.heads + 2 * s.kv_heads) * s.head + 3 * s.width * s.mlp
    tokens = batch * s.positions
    attention = 12 * s.layers * s.heads * s.head * s.positions * tokens
    return 6.0 * (s.layers * layer + s.vocabulary * s.width) * tokens + attention


def loss(
    params: dict[str, Array], tokens: Int[Array, "n positions"], *, sizes: Sizes, remat: str
) -> Float[Array, ""]:
    """Computes the mean cross-entropy of the next token."""
    x = params["tokens"].astype(jnp.bfloat16)[tokens]
    layers = {name[7:]: value for name, value in params.items() if name.startswith("layers/")}
    layer = jax.checkpoint(partial(_layer, sizes=sizes), policy=POLICIES[remat])
    x, _ = jax.lax.scan(lambda x, weights: (layer(x, weights), None), x, layers)
    logits = (_norm(x, params["norm"]) @ params["head"].astype(jnp.bfloat16)).astype(jnp.float32)
    picked = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - picked).mean()


def _layer(x: Array, weights: dict[str, Array], sizes: Sizes) -> Array:
    s, half = sizes, {name: value.astype(jnp.bfloat16) for name, value in weights.items()}
    n, positions, _ = x.shape
    normed = _norm(x, weights["norm_0"])
    query = checkpoint_name(normed @ half["query"], "query").reshape(n, positions, s.heads, s.head)
    key, value = (
        checkpoint_name(normed @ half[name], name).reshape(n, positions, s.kv_heads, s.head)
        for name in ("key", "value")
    )
    mixed = attend(_rotated(query), _rotated(key), value).reshape(n, positions, s.heads * s.head)
    x = x + checkpoint_name(mixed @ half["out"], "out")
    normed = _norm(x, weights["norm_1"])
    return x + (jax.nn.silu(normed @ half["gate"]) * (normed @ half["up"])) @ half["down"]


def _norm(x: Array, scale: Array) -> Array:
    exact = x.astype(jnp.float32)
    size = jax.lax.rsqrt(jnp.square(exact).mean(axis=-1, keepdims=True) + 1e-6)
    return (exact * size * scale).astype(jnp.bfloat16)


def _rotated(x: Array) -> Array:
    """Turns pairs of numbers by angles that grow with the position."""
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-jnp.arange(half) / half)
    angle = (jnp.arange(x.shape[1])[:, None] * rate)[:, None, :]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array) -> Array:
    """Computes causal attention; `kernels` are its two functions."""
    return flash_attention_forward(query, key, value)[0]


@jax.jit
def flash_attention_forward(query: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """Returns the mixed values, and the logarithm of each query's sum of exponentials."""
    scores = _scores(query, key)
    top = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    mixed = jnp.einsum("nkgqt,ntkh->nqkgh", weights.astype(value.dtype), value)
    mixed = (mixed / jnp.moveaxis(total, 3, 1)).astype(value.dtype)
    return mixed.reshape(query.shape), (top + jnp.log(total))[..., 0]


@jax.jit
def flash_attention_backward(
    query: Array, key: Array, value: Array, mixed: Array, logs: Array, given: Array
) -> tuple[Array, Array, Array]:
    """Returns the gradients of queries, keys and values: five matrix products."""
    n, positions, heads, head = query.shape
    grouped = (n, positions, key.shape[2], heads // key.shape[2], head)
    weights = jnp.exp(_scores(query, key) - logs[..., None])
    given_, query_ = given.reshape(grouped), query.reshape(grouped)
    part = (given_.astype(jnp.float32) * mixed.reshape(grouped)).sum(axis=-1)
    of_weights = jnp.einsum("nqkgh,ntkh->nkgqt", given_, value).astype(jnp.float32)
    of_scores = weights * (of_weights - jnp.moveaxis(part, 1, 3)[..., None]) * head**-0.5
    of_scores = of_scores.astype(query.dtype)
    of_value = jnp.einsum("nkgqt,nqkgh->ntkh", weights.astype(value.dtype), given_)
    of_query = jnp.einsum("nkgqt,ntkh->nqkgh", of_scores, key).reshape(query.shape)
    return of_query, jnp.einsum("nkgqt,nqkgh->ntkh", of_scores, query_), of_value


def _scores(query: Array, key: Array) -> Array:
    n, positions, heads, head = query.shape
    grouped = query.reshape(n, positions, key.shape[2], heads // key.shape[2], head)
    scores = jnp.einsum("nqkgh,ntkh->nkgqt", grouped, key).astype(jnp.float32) * head**-0.5
    before = jnp.tril(jnp.ones((positions, positions), bool))
    return jnp.where(before, scores, -1e30)


def _attended(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    mixed, logs = flash_attention_forward(query, key, value)
    return mixed, (query, key, value, mixed, logs)


attend.defvjp(_attended, lambda kept, given: flash_attention_backward(*kept, given))
