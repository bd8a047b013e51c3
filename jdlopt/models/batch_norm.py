"""Whose statistics a Linen batch norm takes while training: a batch's, its groups', or its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

STATISTICS = "batch_stats"
"""The collection of Linen's running statistics."""


def intercepted(frozen: bool, groups: int) -> AbstractContextManager[None]:
    """Has every Linen batch norm that is called meanwhile take the statistics that are asked for.

    Args:
      frozen: whether those are the running ones, which stay as they are.
      groups: in how many groups of a batch, one after the other, statistics are taken of each; a
        batch that can't be cut into so many alike is cut into the most that divide both numbers.
    """
    if frozen:
        return nn.intercept_methods(_running)
    return nn.intercept_methods(_of_groups(groups)) if groups > 1 else nullcontext()


def _running(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> object:
    norm = context.module
    if not isinstance(norm, nn.BatchNorm) or context.method_name != "__call__":
        return call(*args, **kwargs)
    own = norm.use_running_average
    # flax takes the choice from the field or from the call, and complains about both
    object.__setattr__(norm, "use_running_average", None)
    try:
        return call(*args[:1], **{**kwargs, "use_running_average": True})
    finally:
        object.__setattr__(norm, "use_running_average", own)


def _of_groups(groups: int) -> Callable[..., object]:
    """Normalises groups by themselves; running statistics are the mean of what each would make.

    Hoffer, Hubara and Soudry, "Train longer, generalize better", 2017 ("ghost batch
    normalization").
    """
    inside = False

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> object:
        nonlocal inside
        norm = context.module
        if inside or not isinstance(norm, nn.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        if norm.use_running_average or kwargs.get("use_running_average"):
            return call(*args, **kwargs)
        x, *others = args
        count = math.gcd(groups, len(x))
        alone, known = norm.clone(parent=None), norm.variables

        def one(group: jax.Array) -> Any:
            return alone.apply(known, group, *others, **kwargs, mutable=[STATISTICS])

        inside = True
        try:
            y, changed = jax.vmap(one)(x.reshape(count, -1, *x.shape[1:]))
        finally:
            inside = False
        for name, values in changed[STATISTICS].items():
            norm.put_variable(STATISTICS, name, jnp.mean(values, 0))
        return y.reshape(x.shape)

    return intercept
