"""What a Linen model says beside its outputs while training: losses to add, and values to log.

A module sows scalars, ``self.sow("losses", name, value)`` or ``self.sow("measured", name, value)``;
flax keeps what is sown through scans, remat and vmaps. A training step takes them out of the state
that a model returns (`taken`), so they are never part of a checkpoint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

LOSSES, MEASURED = "losses", "measured"
SOWN = (LOSSES, MEASURED)
"""The collections: of terms of the objective, already weighted; of values that are logged."""


class Sown(NamedTuple):
    """What a model said while training.

    Attributes:
      state: the model's state without it.
      loss: the sum of all terms; None where nothing was sown.
      measured: the mean of the values of each name, over the layers that sowed it.
    """

    state: PyTree
    loss: Float[Array, ""] | None
    measured: dict[str, Float[Array, ""]]


def settled(collections: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns the collections that a Linen module changed, what was sown as float32 arrays.

    Flax keeps a tuple for each name, of as many values as the module was called times: terms of the
    objective are added up, values are averaged.

    Example:
      >>> found = settled({"losses": {"layer": {"balance": (jnp.ones(()), jnp.ones(()))}}})
      >>> float(found["losses"]["layer"]["balance"])
      2.0
    """

    def joined(name: str, values: object) -> PyTree:
        if isinstance(values, Mapping):
            return {key: joined(name, one) for key, one in values.items()}
        each = values if isinstance(values, tuple) else (values,)
        total = jnp.sum(jnp.stack([jnp.asarray(one, jnp.float32) for one in each]), axis=0)
        return total if name == LOSSES else total / len(each)

    return {
        name: joined(name, one) if name in SOWN else one
        for name, one in collections.items()
        if name not in SOWN or one
    }


def without(state: PyTree) -> PyTree:
    """Returns a model's state without what was sown; an ensemble's likewise."""
    if not isinstance(state, Mapping):
        return state
    return {key: without(one) for key, one in state.items() if key not in SOWN}


def taken(state: PyTree) -> Sown:
    """Takes what was sown out of the state that a model returned while training. Pure.

    Of an ensemble, the gradient of the loss is that of each model alone, and its value their mean,
    as in `jdlopt.losses.make_loss`.

    Example:
      >>> state = {"losses": {"layers": {"balance": jnp.array([0.25, 0.5])}}, "batch_stats": {}}
      >>> found = taken(state)
      >>> float(found.loss), found.state
      (0.75, {'batch_stats': {}})
    """
    terms = [
        sum((leaf.sum() for leaf in jax.tree.leaves(one)), jnp.float32(0))
        for one in _collections(state, LOSSES)
    ]
    loss = None
    if terms:
        total = jnp.stack(terms).sum()
        loss = total + lax.stop_gradient(total / len(terms) - total) if len(terms) > 1 else total
    values = defaultdict[str, list[Array]](list)
    for one in _collections(state, MEASURED):
        for path, leaf in jax.tree_util.tree_leaves_with_path(one):
            values[str(path[-1].key)].append(leaf)
    measured = {
        name: jnp.stack([leaf.sum() for leaf in leaves]).sum() / sum(leaf.size for leaf in leaves)
        for name, leaves in values.items()
    }
    return Sown(without(state), loss, measured)


def _collections(state: PyTree, name: str) -> Iterator[PyTree]:
    """Yields each model's collection of a name."""
    if not isinstance(state, Mapping):
        return
    for key, one in state.items():
        if key == name:
            yield one
        elif key not in SOWN:
            yield from _collections(one, name)
