"""Random bits for masks: Threefry as one fused expression.

`jax.random.bits` keeps Threefry's rounds in a loop on the CPU, which no fusion reaches into: two
masks of 100 × 100 took half of a small network's training step. The same function with its rounds
written out is a chain of integer operations that XLA vectorises and fuses, on any backend.
"""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, UInt

ROUNDS = 13
"""The fewest rounds with which Threefry-2×32 passes all of TestU01's batteries (Salmon et al.)."""
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def threefry(
    key: tuple[UInt[Array, ""], UInt[Array, ""]],
    high: UInt[Array, "*shape"],
    low: UInt[Array, "*shape"],
    rounds: int = ROUNDS,
) -> tuple[UInt[Array, "*shape"], UInt[Array, "*shape"]]:
    """Encrypts counters with Threefry-2×32.

    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.

    Args:
      key: two 32-bit words.
      high, low: the counter's words.
      rounds: 20 is the cipher that `jax.random` uses.
    """
    chex.assert_rank(key, 0, custom_message="a key is two words; for several keys use jax.vmap")
    chex.assert_equal_shape([high, low], custom_message="a counter has two words")
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    first, second = high + schedule[0], low + schedule[1]
    for index in range(rounds):
        rotation = _ROTATIONS[index % 8]
        first = first + second
        second = (second << rotation) | (second >> (32 - rotation))
        second = second ^ first
        if index % 4 == 3:
            turn = index // 4 + 1
            first = first + schedule[turn % 3]
            second = second + schedule[(turn + 1) % 3] + jnp.uint32(turn)
    return first, second


def sixteen_bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt[Array, "*shape"]:
    """Draws integers in [0, 2¹⁶), four from each encrypted counter. Pure in the key.

    Args:
      key: a random key, used once.
      shape: the shape of the draws.
    """
    words = jax.random.key_data(key).reshape(-1)
    *lead, last = shape or (1,)
    blocks = math.ceil(last / 4)
    counted = (*lead, blocks)
    # one counter a block, over all leading axes: row-major, as a flat array would be numbered
    counter = jnp.zeros(counted, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(counted))):
        counter += lax.broadcasted_iota(jnp.uint32, counted, axis) * jnp.uint32(stride)
        stride *= counted[axis]
    first, second = threefry((words[0], words[-1]), jnp.zeros_like(counter), counter)
    low = jnp.uint32(0xFFFF)
    draws = jnp.concatenate([first & low, first >> 16, second & low, second >> 16], axis=-1)
    return lax.slice_in_dim(draws, 0, last, axis=-1).reshape(shape)
