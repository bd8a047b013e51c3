"""What a training step does, from its shapes alone: arithmetic, bytes, what lies in memory.

A loss is traced once, with its gradient, and walked through operation by operation. The compiler is
not asked, so what it does is guessed: results of matrix products, convolutions, reductions and
gathers are written to memory, as is what they multiply; what lies between them is computed where it
is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import PyTree

from jdlopt.errors import UserError
from jdlopt.mesh.rules import Split
from jdlopt.optim.groups import path_name
from jdlopt.plan.walk import Walk
from jdlopt.plan.walked import (
    FORWARD,
    POWERS,
    PRIMES,
    Array,
    Event,
    Operation,
    Parameter,
    Sent,
    total,
)

Placing = Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Split]]
"""Which axis of the mesh splits each dimension of each parameter, by path, were every axis used."""
CATEGORIES: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"tensor"}),
    frozenset({"expert"}),
    frozenset({"tensor", "expert"}),
)
"""By which axes activations may be split, beside those of the batch and of positions."""


@dataclass(frozen=True)
class Traced:
    """What a step does at any batch size, in one pass over a batch; the update is left out.

    Attributes:
      operations: in their order.
      sent: collectives of activations, whichever axes the mesh has.
      parameters: in the order of the pytree's leaves.
      live: bytes in memory at each moment beside the parameters: [moments, `CATEGORIES`, powers].
      live_weights: the same of gradients and of parameters in another type, split as parameters.
    """

    operations: tuple[Operation, ...]
    sent: tuple[Sent, ...]
    parameters: tuple[Parameter, ...]
    live: np.ndarray
    live_weights: np.ndarray

    def flops(self, phase: str) -> np.ndarray:
        """Returns the FLOPs of a phase by power of the batch size."""
        row = np.zeros(POWERS)
        for one in self.operations:
            if one.phase == phase:
                row += one.times * one.flops.by_power()
        return row

    @cached_property
    def columns(self) -> Columns:
        """The operations as arrays, which a search evaluates many times."""
        return _columns(self.operations)

    @cached_property
    def largest_layer(self) -> float:
        """Bytes of the parameters that are gathered at a time, as they are used."""
        looped: dict[int, float] = {}
        whole = []
        for one in self.parameters:
            size = float(one.numbers * one.used)
            if one.turns > 1:
                looped[one.turns] = looped.get(one.turns, 0.0) + size / one.turns
            else:
                whole.append(size)
        return max([*looped.values(), *whole], default=0.0)


@dataclass(frozen=True)
class Columns:
    """Operations as arrays: [operations] and [operations, powers]."""

    times: np.ndarray
    flops: np.ndarray
    vector: np.ndarray
    moved: np.ndarray
    weights: np.ndarray
    kept: np.ndarray
    split: Mapping[str, np.ndarray]
    dtypes: tuple[str, ...]


def trace(
    function: Callable[..., PyTree],
    params: PyTree,
    batch: PyTree,
    *rest: PyTree,
    frozen: int = 0,
    placing: Placing | None = None,
    kernels: Mapping[str, float] | None = None,
) -> Traced:
    """Returns what a step does that computes a loss and its gradient. Nothing is computed.

    Args:
      function: ``(params, batch, *rest) → loss``; of several outputs, their sum is the loss. Pure.
      params: its parameters, or their shapes.
      batch: arrays whose first axis is the batch, or their shapes; any size of it will do.
      rest: whatever else it takes.
      frozen: how many of ``rest``, from the first, are parameters too, though not trained.
      placing: of the axes other than the batch's, which split which parameters.
      kernels: functions, by their name under `jax.jit`, that run as one kernel, as flash attention
        does: what lies between their operations never reaches memory. With each the share of its
        arithmetic that is done: 0.5 where a causal mask lets it leave half of its blocks out.

    Raises:
      UserError: the loss can't be traced, or not with any other batch size.
    """
    found = [jax.tree_util.tree_leaves_with_path(tree) for tree in (params, *rest[:frozen])]
    paths = [path_name(path) for part in found for path, _ in part]
    leaves = [leaf for part in found for _, leaf in part]
    prime = _prime([leaf.shape for leaf in leaves], batch)

    def loss(params: PyTree, batch: PyTree, *rest: PyTree) -> jax.Array:
        values = jax.tree.leaves(function(params, batch, *rest))
        return sum((jnp.sum(value) for value in values), jnp.zeros(()))

    resized = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((prime, *leaf.shape[1:]), leaf.dtype), batch
    )
    try:
        closed = jax.make_jaxpr(jax.value_and_grad(loss))(params, resized, *rest)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The loss can't be traced: {error} Its batch has {prime} examples here, so that what "
            "grows with the batch can be told."
        ) from error
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    splits = {} if placing is None else placing({p: leaf.shape for p, leaf in zip(paths, leaves)})
    parameters = [
        Parameter(path, tuple(leaf.shape), leaf.dtype.itemsize)
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    walk = Walk(parameters, [splits.get(path, ()) for path in paths], prime, dict(kernels or {}))
    every = [walk.parameter(index, leaf) for index, leaf in enumerate(leaves)]
    trained, batched = len(found[0]), len(jax.tree.leaves(batch))
    aside = [var.aval for var in jaxpr.invars[trained:]]
    given = [
        *every[:trained],
        *(walk.given(aval, batched=True) for aval in aside[:batched]),
        *every[trained:],
        *(walk.given(aval, batched=False) for aval in aside[batched + len(every) - trained :]),
    ]
    consts = [walk.given(var.aval, batched=False) for var in jaxpr.constvars]
    outs = walk.body(jaxpr, [*consts, *given], 1, FORWARD)
    walk.end(outs)
    live, weights = _moments(walk.events, walk.arrays, outs)
    return Traced(tuple(walk.operations), tuple(walk.sent), tuple(parameters), live, weights)


def _prime(shapes: Sequence[tuple[int, ...]], batch: PyTree) -> int:
    """A batch size that no other size of the step has as a factor."""
    others = [*shapes, *(leaf.shape[1:] for leaf in jax.tree.leaves(batch))]
    sizes = {size for shape in others for size in shape if size}
    for prime in PRIMES:
        if all(size % prime for size in sizes):
            return prime
    raise UserError(f"A model with sizes that {PRIMES} divide can't be told from its batch.")


def _columns(operations: Sequence[Operation]) -> Columns:
    names = {axis for one in operations for axis in one.over}
    return Columns(
        times=np.array([one.times for one in operations], float),
        flops=np.array([one.flops.by_power() for one in operations]).reshape(-1, POWERS),
        vector=np.array([one.vector.by_power() for one in operations]).reshape(-1, POWERS),
        moved=np.array([total(one.moved) for one in operations]).reshape(-1, POWERS),
        weights=np.array([one.weights for one in operations], float),
        kept=np.array([one.kept for one in operations], float),
        split={name: np.array([name in one.over for one in operations]) for name in names},
        dtypes=tuple(one.dtype for one in operations),
    )


def _category(array: Array) -> int:
    return CATEGORIES.index(array.over & CATEGORIES[-1])


def _moments(
    events: list[Event], arrays: Mapping[int, Array], kept: Sequence[Array]
) -> tuple[np.ndarray, np.ndarray]:
    """What lies in memory at each event: of activations by category and power, and of weights."""
    row = len(CATEGORIES) * POWERS + 1
    sizes: dict[int, np.ndarray] = {}
    for ident, array in arrays.items():
        size = np.zeros(row)
        if array.size.power == 0:
            size[-1] = array.size.each
        else:
            power = min(array.size.power, POWERS - 1)
            size[_category(array) * POWERS + power] = array.size.each
        sizes[ident] = size
    stay = {ident for array in kept for ident in array.reads}
    rows = np.array(_swept(events, sizes, np.zeros(row), stay)).reshape(-1, row)
    return rows[:, :-1].reshape(-1, len(CATEGORIES), POWERS), rows[:, -1]


def _swept(
    events: list[Event], sizes: Mapping[int, np.ndarray], live: np.ndarray, stay: set[int]
) -> list[np.ndarray]:
    last: dict[int, int] = {}
    for index, event in enumerate(events):
        for ident in (*event.reads, *event.makes):
            last[ident] = index
    ending: dict[int, list[int]] = {}
    for ident, index in last.items():
        ending.setdefault(index, []).append(ident)
    here: set[int] = set()
    rows = []
    for index, event in enumerate(events):
        for ident in event.makes:
            if ident not in here:
                here.add(ident)
                live = live + sizes[ident]
        if event.inner:
            rows += _swept(event.inner, sizes, live, set())
        else:
            rows.append(live)
        for ident in ending.get(index, ()):
            if ident in here and ident not in stay:
                here.discard(ident)
                live = live - sizes[ident]
    return rows
