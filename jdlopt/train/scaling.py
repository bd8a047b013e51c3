"""Dynamic loss scaling: what keeps float16's gradients within its small range.

Flax's `DynamicScale` wraps one call of `jax.value_and_grad`; a step here may make several, over
micro-batches or for an optimizer that asks twice, and is skipped as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jdlopt.train.state import TrainState

START, LOWEST = 2.0**16, 1.0
"""Where a scale starts, and where it ends: below 1 it would only cost the gradients' small bits."""
GROWS_AFTER = 2000
"""Steps without an overflow after which the scale doubles."""


class LossScale(NamedTuple):
    """What the loss is multiplied by before its gradients are taken.

    Attributes:
      scale: a power of two.
      good: steps without an overflow since it last changed.
    """

    scale: Float[Array, ""]
    good: Int[Array, ""]


def start() -> LossScale:
    """Returns the scale of a run's first step."""
    return LossScale(jnp.float32(START), jnp.int32(0))


def value_and_grad(
    objective: Callable[..., tuple[Array, Any]],
    loss_scale: LossScale | tuple[()],
    differentiate: Callable[..., Callable[..., Any]],
) -> Callable[..., tuple[tuple[Array, Any], PyTree]]:
    """Differentiates a scaled objective; value and gradients come back unscaled, in float32.

    Args:
      objective: ``(params, …) → (value, aux)``.
      loss_scale: the scale; empty: none.
      differentiate: turns an objective into its value and gradients.
    """
    if not loss_scale:
        return differentiate(objective)
    scale = loss_scale.scale

    def scaled(*args: object) -> tuple[Array, Any]:
        value, aux = objective(*args)
        return value * scale, aux

    def call(*args: object) -> tuple[tuple[Array, Any], PyTree]:
        (value, aux), grads = differentiate(scaled)(*args)
        return (value / scale, aux), jax.tree.map(lambda leaf: leaf / scale, grads)

    return call


def settled(
    before: TrainState, after: TrainState, grads: PyTree, measured: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
    """Takes a step back if something in it overflowed, and moves the scale.

    A skipped step counts, for schedules and the data order too, but leaves parameters, moments,
    running statistics and average alone, and halves the scale. What it measured is 0, with
    ``skipped`` 1, unless the scale has nowhere to go: then it is reported as it is, not finite, and
    the run ends as one that diverged. Micikevicius et al., "Mixed precision training", 2018.

    Args:
      before, after: the states around the step.
      grads: its gradients.
      measured: its values.

    Returns:
      The state to go on from, and the values with ``loss_scale`` and ``skipped``.
    """
    scale = before.loss_scale.scale
    fine = _finite((measured["loss"], grads, after.params))
    kept = before.replace(opt_state=before.opt_state._replace(step=after.opt_state.step))
    changed = {
        name: jax.tree.map(partial(jnp.where, fine), getattr(after, name), getattr(kept, name))
        for name in ("params", "model_state", "opt_state", "average")
    }
    state = after.replace(**changed, loss_scale=_moved(before.loss_scale, fine))
    told = fine | (scale <= LOWEST)
    values = {
        name: value if name == "learning_rate" else jnp.where(told, value, 0.0)
        for name, value in measured.items()
    }
    # a parameter may overflow where no gradient does
    values["grad_norm"] = jnp.where(told & ~fine, jnp.inf, values["grad_norm"])
    return state, {**values, "loss_scale": scale, "skipped": 1.0 - fine.astype(jnp.float32)}


def _moved(loss_scale: LossScale, fine: Bool[Array, ""]) -> LossScale:
    good = jnp.where(fine, loss_scale.good + 1, 0)
    grown = good == GROWS_AFTER
    scale = jnp.where(grown, loss_scale.scale * 2, loss_scale.scale)
    scale = jnp.where(fine, scale, jnp.maximum(loss_scale.scale / 2, LOWEST))
    return LossScale(scale, jnp.where(grown, 0, good))


def _finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
