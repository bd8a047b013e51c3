"""Sampling from a decoder: keys and values of the tokens so far are kept, not computed again."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from jdlopt.config import Scalar
from jdlopt.errors import ConfigError
from jdlopt.models.transformer import TransformerDecoder, lengths_of


def sample(
    key: Key[Array, ""],
    logits: Float[Array, "n num_tokens"],
    temperature: Scalar = 1.0,
    top_k: int | Int[Array, ""] = 0,
    top_p: Scalar = 1.0,
) -> Int[Array, " n"]:
    """Draws a token for each row. All options may be traced: one program serves all values.

    Args:
      key: a random key.
      logits: scores of the tokens.
      temperature: what they are divided by; 0 takes the best token.
      top_k: how many of the best tokens are drawn from; 0 for all. Fan, Lewis and Dauphin,
        "Hierarchical neural story generation", 2018.
      top_p: of those, the fewest best tokens whose probabilities sum to at least so much. Holtzman
        et al., "The curious case of neural text degeneration", 2020.

    Example:
      >>> logits = jnp.log(jnp.array([[0.2, 0.5, 0.3]]))
      >>> sample(jax.random.key(0), logits, temperature=0.0).tolist()
      [1]
      >>> sample(jax.random.key(0), logits, top_p=0.5).tolist()
      [1]
    """
    temperature = jnp.asarray(temperature, jnp.float32)

    def best() -> Array:
        return jnp.argmax(logits, axis=-1)

    def drawn() -> Array:
        scaled = logits.astype(jnp.float32) / jnp.maximum(temperature, 1e-6)
        falling, tokens = lax.top_k(scaled, scaled.shape[-1])
        rank = jnp.arange(scaled.shape[-1])
        falling = jnp.where((rank < top_k) | (jnp.asarray(top_k) == 0), falling, -jnp.inf)
        probabilities = jax.nn.softmax(falling)
        better = jnp.cumsum(probabilities, axis=-1) - probabilities
        falling = jnp.where((better < top_p) | (rank == 0), falling, -jnp.inf)
        choice = jax.random.categorical(key, falling)
        return jnp.take_along_axis(tokens, choice[:, None], axis=-1)[:, 0]

    return lax.cond(temperature > 0, drawn, best)


@functools.partial(jax.jit, static_argnames=("model", "count", "end", "scored_by"))
def generate(
    params: PyTree,
    prompt: Int[Array, "n positions"],
    key: Key[Array, ""],
    temperature: Scalar = 1.0,
    top_k: int | Int[Array, ""] = 0,
    top_p: Scalar = 1.0,
    *,
    model: TransformerDecoder,
    count: int,
    end: int | None = None,
    lengths: Int[Array, " n"] | None = None,
    scored_by: str = "scores",
) -> Int[Array, "n count"]:
    """Continues sequences of tokens, all of them together. Pure, and compiled once per shape.

    The prompts run through the model once; then each token does, with the keys and values of those
    before it in a cache.

    Args:
      params: the model's parameters.
      prompt: token ids; shorter prompts end with padding, id 0.
      key: a random key.
      temperature, top_k, top_p: as in `sample`; new values compile nothing anew.
      model: the decoder, built with the size of its vocabulary, ``num_tokens``.
      count: how many tokens to generate.
      end: the token after which a sequence is complete; the rest of its row is 0.
      lengths: how long each prompt is; needed only where prompts end with a token whose id is 0.
      scored_by: the model's method that scores tokens; by ``next_scores`` padding is none of them.

    Returns:
      The new tokens.

    Raises:
      ConfigError: the model has no vocabulary, or too few positions.

    Example:
      >>> model = TransformerDecoder(num_outputs=1, features=8, num_heads=2, num_tokens=9)
      >>> prompt = jnp.array([[3, 1, 4], [1, 5, 0]])
      >>> params = model.init(jax.random.key(0), prompt)["params"]
      >>> generate(params, prompt, jax.random.key(1), 0.8, model=model, count=5).shape
      (2, 5)
    """
    n, positions = prompt.shape
    slots = positions + count - 1  # the last token is never looked at
    if not model.num_tokens:
        raise ConfigError("generate: the model has no vocabulary; give it num_tokens.")
    if slots > model.max_positions:
        raise ConfigError(
            f"generate: prompts of {positions} and {count} new tokens need {slots} positions; "
            f"model.max_positions is {model.max_positions}."
        )
    lengths = jnp.maximum(lengths_of(prompt) if lengths is None else lengths, 1)

    def forward(tokens: Array, where: Array, last: Array, cache: PyTree) -> tuple[Array, PyTree]:
        mask = jnp.arange(slots) <= where[:, None, :, None]
        states, changed = model.apply(
            {"params": params, **cache},
            tokens,
            positions=where,
            mask=mask,
            method="states",
            mutable=["cache"],
        )
        states = jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
        logits: Any = model.apply({"params": params}, states, method=scored_by)
        return logits, dict(changed)

    def draw(index: Any, logits: Array, done: Array) -> tuple[Array, Array]:
        token = sample(jax.random.fold_in(key, index), logits, temperature, top_k, top_p)
        token = jnp.where(done, 0, token).astype(prompt.dtype)
        return token, done if end is None else done | (token == end)

    def advance(carry: Any) -> Any:
        index, tokens, token, done, cache = carry
        # A prompt's padding has left keys in these slots: each is overwritten before it is seen.
        where = (lengths + index - 1)[:, None]
        logits, cache = forward(token[:, None], where, jnp.zeros_like(lengths), cache)
        token, done = draw(index, logits, done)
        return index + 1, tokens.at[:, index].set(token), token, done, cache

    where = jnp.broadcast_to(jnp.arange(positions), prompt.shape)
    logits, cache = forward(prompt, where, lengths - 1, {})
    token, done = draw(0, logits, jnp.zeros(n, bool))
    tokens = jnp.zeros((n, count), prompt.dtype).at[:, 0].set(token)
    return lax.while_loop(
        lambda carry: (carry[0] < count) & ~carry[3].all(),
        advance,
        (jnp.asarray(1), tokens, token, done, cache),
    )[1]
