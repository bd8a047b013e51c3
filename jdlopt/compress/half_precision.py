"""Weights rounded to 16 bits, as which they are stored."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jdlopt.compress.entry import Apply, Candidate, Given, Method, TrainingBatches
from jdlopt.evidence.options import SIZE
from jdlopt.train.inference import stored_bytes
from jdlopt.train.schema import Config
from jdlopt.train.state import Weights


def _rounded(leaf: Array) -> Array:
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(jnp.float16).astype(leaf.dtype)


def to_float16(
    config: Config, weights: Weights, batches: TrainingBatches
) -> tuple[Config, Weights]:
    """Returns weights rounded to the nearest float16; they still compute in their own type."""
    return config, weights.replace(params=jax.tree.map(_rounded, weights.params))


_in_16_bits = partial(stored_bytes, widest=16)


def _why_not(given: Given) -> str | None:
    largest = max(
        (float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(given.weights.params) if leaf.size),
        default=0.0,
    )
    most = float(jnp.finfo(jnp.float16).max)
    return f"A weight of {largest:.3g} is beyond float16's {most:.3g}." if largest > most else None


HALF_PRECISION = Method(
    "float16", (SIZE,), "Stores parameters as float16; the arithmetic stays as it is.", "nothing",
    "Micikevicius et al., Mixed precision training, 2018",
    lambda given: (Candidate("float16", (Apply("float16", to_float16),), _in_16_bits),),
    _why_not, follows=True,
)  # fmt: skip
