"""What of the parameters is trained, and from which step on: gradients that cost no more than that.

Frozen parameters are no argument of the differentiated function, so there is no backward pass, no
gradient and no optimizer state for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdlopt.kernels.branches import largest_of_all
from jdlopt.optim.groups import FROZEN, REST, check_groups, labels_of, members, path_name


class Freezing(NamedTuple):
    """Two pure functions; where nothing is frozen they add nothing to a step.

    Attributes:
      split: ``params → (trained, frozen)``, each with None in the other's places;
        `jdlopt.optim.groups.joined` is its inverse.
      value_and_grad: ``(objective, step) → function`` as `jax.value_and_grad` with ``has_aux``
        returns it. Groups that the step doesn't train yet have gradients of zero, which no backward
        pass was run for.
    """

    split: Callable[[PyTree], tuple[PyTree, PyTree]]
    value_and_grad: Callable[..., Callable[..., Any]]


def make_freezing(section: Mapping[str, Any]) -> Freezing:
    """Returns what ``optim.freeze`` and ``optim.groups.*.unfreeze_at`` make of a training step.

    Args:
      section: the ``optim`` section.

    Raises:
      ConfigError: a pattern is not a regular expression; `split` raises what patterns get wrong
        about the parameters.

    Example:
      >>> freezing = make_freezing({"freeze": ("^body/",)})
      >>> params = {"body": {"kernel": jnp.ones(2)}, "head": jnp.ones(2)}
      >>> trained, frozen = freezing.split(params)
      >>> trained
      {'body': {'kernel': None}, 'head': Array([1., 1.], dtype=float32)}
    """
    label = labels_of(section)
    starts = {name: group["unfreeze_at"] for name, group in section.get("groups", {}).items()}
    unfreezings = sorted({start for start in starts.values() if start})

    def split(params: PyTree) -> tuple[PyTree, PyTree]:
        check_groups(section, params)
        return members(label, (REST, *starts), params), members(label, (FROZEN,), params)

    def start_of(path: tuple[object, ...]) -> int:
        return starts.get(label(path_name(path)) or "", 0)

    def value_and_grad(objective: Callable[..., Any], step: Int[Array, ""]) -> Callable[..., Any]:
        if not unfreezings:
            return jax.value_and_grad(objective, has_aux=True)

        def phase_from(first_step: int) -> Callable[..., object]:
            def held(path: tuple[object, ...], leaf: Array) -> Array:
                return jax.lax.stop_gradient(leaf) if start_of(path) > first_step else leaf

            def holding(trained: PyTree, *rest: object) -> object:
                return objective(jax.tree_util.tree_map_with_path(held, trained), *rest)

            return jax.value_and_grad(holding, has_aux=True)

        phases = [phase_from(first_step) for first_step in (0, *unfreezings)]
        phase = largest_of_all(sum(jnp.asarray(step >= at, jnp.int32) for at in unfreezings))

        def masked(path: tuple[object, ...], gradient: Array) -> Array:
            start = start_of(path)
            return jnp.where(step >= start, gradient, 0) if start else gradient

        def value_and_grad_now(*args: object) -> object:
            value, grads = jax.lax.switch(phase, phases, *args)
            # in a population, another trial may be further on
            return value, jax.tree_util.tree_map_with_path(masked, grads)

        return value_and_grad_now

    return Freezing(split, value_and_grad)
