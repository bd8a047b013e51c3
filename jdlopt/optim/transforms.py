"""Gradient transformations that optax lacks, or has only for Python floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax import contrib

from jdlopt.config import Scalar


def clip_by_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Scales the whole gradient down to a global norm: ``g ← g · min(1, max_norm / ‖g‖)``.

    Pascanu et al., "On the difficulty of training Recurrent Neural Networks", 2013. optax's
    `clip_by_global_norm` takes no traced norm for gradients of less than float32.

    Args:
      max_norm: the largest norm.

    Example:
      >>> clip = clip_by_norm(1.0)
      >>> clip.update(jnp.array([3.0, 4.0]), clip.init(None))[0]
      Array([0.6, 0.8], dtype=float32)
    """

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        del params
        scale = jnp.minimum(1.0, max_norm / optax.tree.norm(updates))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def clip_adaptively(clipping: Scalar, eps: float = 1e-3) -> optax.GradientTransformation:
    """Clips each unit's gradient norm to a fraction of its weights' norm (AGC).

    ``g ← g · min(1, clipping · max(‖w‖, eps) / ‖g‖)`` for each unit. Brock et al.,
    "High-Performance Large-Scale Image Recognition Without Normalization", 2021. A unit is what
    feeds one output: the slice along a kernel's last axis, whatever its rank, or a whole vector.
    (optax takes the first axis alone of a rank-3 kernel, which is a 1-D convolution here.)

    Args:
      clipping: the largest ratio of the norms.
      eps: the least norm that weights count as having, so that zeros can leave zero.

    Example:
      >>> clip = clip_adaptively(0.5)
      >>> clip.update(jnp.array([3.0, 4.0]), clip.init(None), jnp.array([0.0, 2.0]))[0]
      Array([0.6, 0.8], dtype=float32)
    """

    def unit_norm(x: Array) -> Array:
        axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
        return jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))

    def clipped(gradient: Array, weights: Array) -> Array:
        limit = clipping * jnp.maximum(unit_norm(weights), eps)
        return gradient * jnp.minimum(1.0, limit / jnp.maximum(unit_norm(gradient), 1e-6))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return jax.tree.map(clipped, updates, params), state

    return optax.GradientTransformation(optax.init_empty_state, update)


class SumOfSquaresState(NamedTuple):
    """The squares of all gradients so far, summed for each parameter."""

    sum_of_squares: PyTree


def scale_by_sum_of_squares(
    initial_accumulator: Scalar, eps: Scalar
) -> optax.GradientTransformation:
    """Divides by the root of the sum of all squared gradients: ``g / √(initial + Σ g² + eps)``.

    Duchi et al., "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    2011. The initial value is added at each use instead of once at the start: so the state does not
    depend on a hyperparameter.

    Args:
      initial_accumulator: what the sum starts with.
      eps: added to the sum.
    """

    def init(params: PyTree) -> SumOfSquaresState:
        return SumOfSquaresState(optax.tree.zeros_like(params))

    def update(
        updates: PyTree, state: SumOfSquaresState, params: PyTree = None
    ) -> tuple[PyTree, SumOfSquaresState]:
        del params
        sums = jax.tree.map(lambda g, total: total + g * g, updates, state.sum_of_squares)

        def scaled(g: Array, total: Array) -> Array:
            total = total + initial_accumulator
            return g * jnp.where(total > 0, jax.lax.rsqrt(total + eps), 0.0)

        return jax.tree.map(scaled, updates, sums), SumOfSquaresState(sums)

    return optax.GradientTransformation(init, update)


def schedule_free(
    base: optax.GradientTransformation, learning_rate: Scalar, b1: Scalar
) -> optax.GradientTransformationExtraArgs:
    """Replaces momentum and schedule by averaging: optax's `schedule_free` with a traced ``b1``.

    Defazio et al., "The Road Less Scheduled", 2024. optax keeps the ``b1`` of `init` in the state;
    here each update writes its own, so that `schedule_free_eval_params` finds the traced one.
    (Before the first update any ``b1`` gives the parameters themselves.)

    Args:
      base: an optimizer without momentum, its learning rate applied.
      learning_rate: the step's learning rate, by which the average is weighted.
      b1: how far the gradient's point lies towards the average, in (0, 1).
    """
    inner = contrib.schedule_free(base, learning_rate, b1)

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: object) -> Any:
        updates, state = inner.update(updates, state, params, **extra)
        return updates, state._replace(b1=jnp.asarray(b1, state.b1.dtype))

    return optax.GradientTransformationExtraArgs(inner.init, update)


def sharpness_aware(
    base: optax.GradientTransformation, rho: Scalar
) -> optax.GradientTransformationExtraArgs:
    """Takes the gradient at the worst point nearby (SAM): ``g ← ∇f(w + rho · g / ‖g‖)``.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021. As
    optax's `sam` in its opaque mode, except that a gradient of zero stays one (there: NaN).

    Args:
      base: the optimizer that is given the new gradient.
      rho: the distance to the point.

    Returns:
      A transformation whose `update` needs ``grad_fn``: params → gradients on the same batch.
    """

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: object,
    ) -> tuple[PyTree, PyTree]:
        del extra
        if grad_fn is None:
            raise ValueError("sam needs update(..., grad_fn=): params to gradients, same batch.")
        distance = rho / jnp.maximum(optax.tree.norm(updates), 1e-12)
        nearby = jax.tree.map(lambda p, g: p + distance.astype(p.dtype) * g, params, updates)
        return base.update(grad_fn(nearby), state, params)

    return optax.GradientTransformationExtraArgs(base.init, update)


class PlateauState(NamedTuple):
    """How far the learning rate is reduced, and why.

    Attributes:
      scale: what the learning rate is multiplied by.
      best: the lowest mean loss of a window.
      stale: windows since then.
      cooldown: windows for which staleness is not counted.
      seen: steps in the present window.
      mean: the mean loss of the present window.
    """

    scale: Float[Array, ""]
    best: Float[Array, ""]
    stale: Int[Array, ""]
    cooldown: Int[Array, ""]
    seen: Int[Array, ""]
    mean: Float[Array, ""]


def init_plateau() -> PlateauState:
    """Returns the state in which nothing was seen and nothing is reduced."""
    zero = jnp.zeros((), jnp.int32)
    # The largest number and not infinity, of which a relative part can't be subtracted.
    worst = jnp.full((), jnp.finfo(jnp.float32).max)
    return PlateauState(jnp.ones(()), worst, zero, zero, zero, jnp.zeros(()))


def update_plateau(
    state: PlateauState,
    value: Scalar,
    *,
    factor: Scalar,
    patience: int,
    relative_tolerance: Scalar,
    cooldown: int,
    accumulation_steps: int,
    end_fraction: Scalar,
) -> PlateauState:
    """Takes in one step's loss; ends a window by reducing the scale if none was better lately.

    optax's `reduce_on_plateau`, which checks its floats in Python; and a negative loss improves by
    falling here too.

    Args:
      state: the state before this step.
      value: this step's loss.
      factor: what a reduction multiplies the scale by.
      patience: stale windows in a row that lead to a reduction.
      relative_tolerance: by what part of itself the best must be undercut to count as improved.
      cooldown: windows after a reduction in which none is stale.
      accumulation_steps: steps in a window.
      end_fraction: the lowest scale.
    """
    seen = state.seen + 1
    mean = state.mean + (jnp.asarray(value, jnp.float32) - state.mean) / seen
    improved = mean < state.best - relative_tolerance * jnp.abs(state.best)
    cooling = state.cooldown > 0
    stale = jnp.where(improved | cooling, 0, state.stale + 1)
    reduce = stale >= patience
    scale = jnp.where(reduce, jnp.maximum(state.scale * factor, end_fraction), state.scale)
    after = PlateauState(
        scale=scale,
        best=jnp.where(improved, mean, state.best),
        stale=jnp.where(reduce, 0, stale),
        cooldown=jnp.where(reduce, cooldown, jnp.maximum(state.cooldown - 1, 0)),
        seen=jnp.zeros_like(seen),
        mean=jnp.zeros_like(mean),
    )
    within = state._replace(seen=seen, mean=mean)
    return jax.tree.map(lambda a, w: jnp.where(seen >= accumulation_steps, a, w), after, within)
