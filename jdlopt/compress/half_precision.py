"""Weights rounded to 16 bits, as which they are stored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jdlopt.compress.entry import SIZE, Apply, Candidate, Given, Method, TrainingBatches
from jdlopt.models.pruning import without_masks
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


def float16_bytes(config: Config, weights: Weights) -> int:
    """Returns the bytes of weights whose parameters are stored as float16."""
    params = sum(
        leaf.size * min(leaf.dtype.itemsize, 2) for leaf in jax.tree.leaves(weights.params)
    )
    state = without_masks(weights.model_state)  # what they leave out is 0 already
    return params + sum(leaf.nbytes for leaf in jax.tree.leaves(state))


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
    lambda given: (Candidate("float16", (Apply("float16", to_float16),), float16_bytes),),
    _why_not, follows=True,
)  # fmt: skip
