"""A branch that all trials of a population take together."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int


@custom_vmap
def largest_of_all(phase: Int[Array, ""]) -> Int[Array, ""]:
    """Returns the number itself; of a population, the largest of all, one for all trials.

    A branch that differed from trial to trial would be a select between all branches, all computed.
    Trials of a population are as good as always at the same step, so they take the same branch; the
    largest number's must hold what the others need.
    """
    return phase


@largest_of_all.def_vmap
def _(axis_size: int, in_batched: list[bool], phases: Int[Array, " trials"]) -> Any:
    del axis_size, in_batched
    return jnp.max(phases), False
