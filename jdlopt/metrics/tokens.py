"""How well the next token of texts is known: nats, perplexity and bits per byte."""

from __future__ import annotations

import math

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jdlopt.data.vocabulary import bytes_of
from jdlopt.metrics.scores import Split


def there(targets: Int[Array, "n positions"], real: Bool[Array, "n"]) -> Bool[Array, "n positions"]:
    """Returns which positions have a target that counts."""
    return (targets >= 0) & real[:, None]


def nats(
    outputs: Float[Array, "n positions tokens"],
    targets: Int[Array, "n positions"],
    real: Bool[Array, "n"],
) -> Float[Array, "n"]:
    """Returns the sum of ``-ln p`` over the targets of each row."""
    logits = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(targets, 0))
    return jnp.where(there(targets, real), each, 0.0).sum(axis=-1)


def counts(
    targets: Int[Array, "n positions"], real: Bool[Array, "n"], tokens: int
) -> Int[Array, "tokens"]:
    """Returns how often each token is a target."""
    found = jnp.where(there(targets, real), targets, tokens)
    return jnp.bincount(found.ravel(), length=tokens + 1)[:tokens]


def perplexity(split: Split) -> float:
    """Returns ``exp`` of the mean nats of a token: among how many alike ones it is as hard."""
    mean = split.leaves["nats"].sum(dtype="float64") / split.leaves["targets"].sum()
    return math.exp(mean) if mean < 700 else math.inf


def bits_per_byte(split: Split) -> float:
    """Returns ``nats / (bytes ln 2)``, which depends on no tokenizer, of all tokens together."""
    size = int(split.leaves["targets"] @ bytes_of(split.class_names))
    return float(split.leaves["nats"].sum(dtype="float64") / (size * math.log(2)))
