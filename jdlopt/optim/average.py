"""Averages of the parameters over training, for evaluation: EMA and SWA.

The state holds the average itself, no bias correction left to do, so it is evaluated as it is.
An update moves it by ``weight · (params - average)``; the methods differ in the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jdlopt.config import Count, Natural, Rate, Value, find_part, own_keys


class AverageState(NamedTuple):
    """The running average.

    Attributes:
      taken: parameter vectors in the average.
      params: the averaged parameters.
      model_state: the model's other state (batch norm's moments), its floats averaged likewise.
    """

    taken: Int[Array, ""]
    params: PyTree
    model_state: PyTree


Weight = tuple[Float[Array, ""], Int[Array, ""]]


def ema(
    step: Int[Array, ""], count: Int[Array, ""], total_steps: int, *, decay: Rate = 0.999
) -> Weight:
    """Weighs the newest parameters as an exponential moving average without its start's bias does.

    The average after ``t`` updates is ``(1-d)/(1-d^t) · Σ d^(t-i) · params_i``: Adam's bias
    correction, so that the random initial parameters never count.

    Args:
      step: updates made, this one included.
      count: parameter vectors in the average.
      total_steps: updates in the whole training.
      decay: what a step multiplies the weight of older parameters by.

    Returns:
      The weight of the newest parameters, and how many are in the average then.
    """
    del step, total_steps
    count = count + 1
    return (1 - decay) / (1 - jnp.asarray(decay) ** count), count


def swa(
    step: Int[Array, ""],
    count: Int[Array, ""],
    total_steps: int,
    *,
    start_step: Natural | None = None,
    every: Count = 1,
) -> Weight:
    """Weighs the newest parameters as a plain mean of those at regular steps does.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.
    Before ``start_step`` the "average" is the newest parameters.

    Args:
      step: updates made, this one included.
      count: parameter vectors in the average.
      total_steps: updates in the whole training.
      start_step: the update whose result is the first in the mean; None: three quarters of the
        training.
      every: updates from one parameter vector in the mean to the next.

    Returns:
      The weight of the newest parameters, and how many are in the average then.
    """
    first = total_steps * 3 // 4 if start_step is None else start_step
    taken = (step >= first) & ((step - first) % every == 0)
    count = count + taken
    weight = jnp.where(taken, 1 / jnp.maximum(count, 1), jnp.where(count == 0, 1.0, 0.0))
    return weight, count


AVERAGES: dict[str, Callable[..., Weight] | None] = {"none": None, "ema": ema, "swa": swa}
"""Averages by name: ``(step, count, total_steps, *, keys) → (weight of the newest, count)``."""


@dataclass(frozen=True)
class AverageFields:
    """The ``optim.average`` section: which average, and its own keys.

    Attributes:
      name: a method of `AVERAGES`, or ``package.module:name``; ``none`` costs nothing.
      options: the average's own keys.
    """

    name: str = "none"
    options: Mapping[str, Value] = own_keys()


class Average(NamedTuple):
    """Three pure functions; for the name ``none`` the state is empty and they cost nothing.

    Attributes:
      init: ``(params, model_state) → state``.
      update: ``(state, params, model_state, step, hparams) → state``, called after each update of
        the parameters with how many were made and the floats of ``optim.average``.
      evaluated: ``(state, params, model_state) → (params, model_state)``: what to evaluate.
    """

    init: Callable[[PyTree, PyTree], Any]
    update: Callable[..., Any]
    evaluated: Callable[[Any, PyTree, PyTree], tuple[PyTree, PyTree]]


def make_average(section: Mapping[str, Any], total_steps: int) -> Average:
    """Returns the parameter average that the ``optim`` section of a config asks for.

    Args:
      section: the ``optim`` section; its floats are the defaults of those not in ``hparams``.
      total_steps: updates in the whole training.
    """
    keys = dict(section.get("average", {}))
    weigh = find_part(keys.pop("name", "none"), AVERAGES, "optim.average.name")
    if weigh is None:
        return Average(
            init=lambda params, model_state: (),
            update=lambda state, params, model_state, step, hparams: state,
            evaluated=lambda state, params, model_state: (params, model_state),
        )

    def init(params: PyTree, model_state: PyTree) -> AverageState:
        # Copies, so that the parameters and their average can both be donated.
        params, model_state = jax.tree.map(jnp.copy, (params, model_state))
        return AverageState(jnp.zeros((), jnp.int32), params, model_state)

    def update(
        state: AverageState,
        params: PyTree,
        model_state: PyTree,
        step: Int[Array, ""],
        hparams: PyTree,
    ) -> AverageState:
        chex.assert_trees_all_equal_shapes(
            state.params, params, custom_message="an average is of one model's parameters"
        )
        weight, count = weigh(step, state.taken, total_steps, **{**keys, **hparams})

        def moved(old: Array, new: Array) -> Array:
            if not jnp.issubdtype(new.dtype, jnp.inexact):
                return new
            return old + weight.astype(new.dtype) * (new - old)

        averaged = jax.tree.map(moved, (state.params, state.model_state), (params, model_state))
        return AverageState(count, *averaged)

    def evaluated(
        state: AverageState, params: PyTree, model_state: PyTree
    ) -> tuple[PyTree, PyTree]:
        del params, model_state
        return state.params, state.model_state

    return Average(init, update, evaluated)
