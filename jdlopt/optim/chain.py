"""From a config's ``optim`` section to one optax transformation with traced hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax import contrib

from jdlopt.config import Count, NonNegative, Positive, fields_of, find_part
from jdlopt.errors import ConfigError
from jdlopt.optim import transforms
from jdlopt.optim.groups import NO_DECAY, decay_mask, matching
from jdlopt.optim.optimizers import OPTIMIZERS
from jdlopt.optim.schedules import Step, make_schedule, plateau_keys


@dataclass(frozen=True)
class OptimFields:
    """The keys of the ``optim`` section that every optimizer shares.

    An optimizer's own key of the same name goes before (`adamw` decays by default). Beside these
    there are the sections ``optim.schedule`` and ``optim.average``.

    Attributes:
      name: an `OPTIMIZERS` entry, or ``package.module:function`` of the same signature.
      learning_rate: the step size that the schedule's factor multiplies.
      weight_decay: decoupled: each step takes ``learning_rate · weight_decay · w`` off the weights
        w; None: none.
      decay_exclude: regular expressions of the parameter paths that don't decay.
      clip_value: the largest absolute value of any gradient's entry.
      clip_adaptive: the largest ratio of a unit's gradient norm to its weights' norm.
      clip_norm: the largest global norm of the gradient. Of several clips, this is the last.
      accumulate: micro-batches whose mean gradient makes one update.
    """

    name: str = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative | None = None
    decay_exclude: tuple[str, ...] = NO_DECAY
    clip_value: Positive | None = None
    clip_adaptive: Positive | None = None
    clip_norm: Positive | None = None
    accumulate: Count = 1


class OptimizerState(NamedTuple):
    """What an optimizer remembers: a plain pytree of arrays.

    Attributes:
      step: updates made so far.
      inner: the named optimizer's own state.
      plateau: the reductions so far (`transforms.PlateauState`), or empty.
    """

    step: Int[Array, ""]
    inner: PyTree
    plateau: PyTree


CLIPS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "clip_value": optax.clip,
    "clip_adaptive": transforms.clip_adaptively,
    "clip_norm": transforms.clip_by_norm,
}
SHARED = frozenset(OptimFields.__dataclass_fields__) | {"schedule", "average"}


def complete(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an ``optim`` section with the keys that it leaves out at their defaults.

    Raises:
      ConfigError: the optimizer's name is unknown.
    """
    given = {"name": OptimFields.name, "schedule": {}, "average": {}, **section}
    part = find_part(given["name"], OPTIMIZERS, "optim.name")
    fields = {**fields_of(OptimFields), **fields_of(part)}
    return {**{key: field.default for key, field in fields.items()}, **given}


def make_optimizer(
    section: Mapping[str, Any], total_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of a config's ``optim`` section.

    Its ``update`` takes, beside gradients, state and parameters:
      hparams: the section's floats (``{"learning_rate": …, "schedule": {…}}``), traced; one that is
        missing has the section's value.
      value: the step's training loss (for ``reduce_on_plateau``).
      grad_fn: parameters → gradients on the same batch (for ``sam``).

    Args:
      section: the section, nested; what it leaves out has its default.
      total_steps: updates in the whole training.

    Raises:
      ConfigError: a name or pattern is wrong, or two settings exclude each other.

    Example:
      >>> section = {"name": "sgd", "learning_rate": 0.5, "clip_norm": 1.0}
      >>> optimizer = make_optimizer(section, total_steps=100)
      >>> params = {"kernel": jnp.array([1.0, 2.0])}
      >>> state = optimizer.init(params)
      >>> grads = {"kernel": jnp.array([3.0, 4.0])}
      >>> hparams = {"learning_rate": jnp.float32(0.1), "clip_norm": jnp.float32(5.0)}
      >>> print(optimizer.update(grads, state, params, hparams=hparams)[0]["kernel"])
      [-0.3 -0.4]
    """
    section = complete(section)
    entry = find_part(section["name"], OPTIMIZERS, "optim.name")
    _check(section)
    factor = make_schedule(section["schedule"], total_steps)
    plateau = plateau_keys(section["schedule"], total_steps)
    clips = [key for key in CLIPS if section[key] is not None]
    own = [key for key in section if key not in SHARED]

    def inner(hparams: Mapping[str, Any], learning_rate: Any) -> Any:
        values = {**section, **hparams}
        add_decay = optax.identity()
        if section["weight_decay"] is not None:
            add_decay = optax.add_decayed_weights(
                values["weight_decay"], lambda params: decay_mask(params, section["decay_exclude"])
            )
        transformation = entry(learning_rate, add_decay, **{key: values[key] for key in own})
        return optax.with_extra_args_support(transformation)

    def init(params: PyTree) -> OptimizerState:
        return OptimizerState(
            step=jnp.zeros((), jnp.int32),
            inner=inner({}, section["learning_rate"]).init(params),
            plateau=() if plateau is None else transforms.init_plateau(),
        )

    def update(
        grads: PyTree,
        state: OptimizerState,
        params: PyTree,
        *,
        hparams: Mapping[str, Any],
        value: Float[Array, ""] | None = None,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, OptimizerState]:
        values = {**section, **hparams}
        scheduled = hparams.get("schedule", {})
        learning_rate = values["learning_rate"] * factor(state.step, scheduled)
        reduced = state.plateau
        if plateau is not None:
            if value is None:
                raise ValueError("reduce_on_plateau needs update(..., value=): the step's loss.")
            reduced = transforms.update_plateau(reduced, value, **{**plateau, **scheduled})
            learning_rate = learning_rate * reduced.scale

        def clipped(grads: PyTree, at: PyTree) -> PyTree:
            for key in clips:
                grads, _ = CLIPS[key](values[key]).update(grads, optax.EmptyState(), at)
            return grads

        if grad_fn is not None:
            extra["grad_fn"] = lambda at: clipped(grad_fn(at), at)
        updates, inner_state = inner(hparams, learning_rate).update(
            clipped(grads, params), state.inner, params, value=value, **extra
        )
        return updates, OptimizerState(state.step + 1, inner_state, reduced)

    return optax.GradientTransformationExtraArgs(init, update)


def _check(section: Mapping[str, Any]) -> None:
    """Raises what is wrong with a section before anything is traced."""
    matching({}, section["decay_exclude"])
    average = section["average"].get("name", "none")
    if section["name"] == "schedule_free_adamw" and average != "none":
        raise ConfigError(
            f"optim.average.name is {average!r}, but optim.name 'schedule_free_adamw' averages the "
            "parameters itself: set optim.average.name to 'none'."
        )


def learning_rate_at(
    section: Mapping[str, Any],
    total_steps: int,
    step: Step,
    hparams: Mapping[str, Any],
    opt_state: OptimizerState | None = None,
) -> Float[Array, ""]:
    """Returns the learning rate of one step, for logs.

    Args:
      section: the ``optim`` section.
      total_steps: updates in the whole training.
      step: how many updates were made before it.
      hparams: the section's floats.
      opt_state: the optimizer's state after the step; without it the reductions of
        ``reduce_on_plateau`` are left out.
    """
    section = complete(section)
    factor = make_schedule(section["schedule"], total_steps)
    base = hparams.get("learning_rate", section["learning_rate"])
    rate = base * factor(step, hparams.get("schedule", {}))
    if opt_state is not None and isinstance(opt_state.plateau, transforms.PlateauState):
        rate = rate * opt_state.plateau.scale
    return rate


def eval_params(section: Mapping[str, Any], opt_state: OptimizerState, params: PyTree) -> PyTree:
    """Returns the parameters to evaluate: schedule-free's average, or for all others ``params``.

    Args:
      section: the ``optim`` section.
      opt_state: the optimizer's state.
      params: the parameters that are trained.
    """
    if section.get("name") == "schedule_free_adamw":
        return contrib.schedule_free_eval_params(opt_state.inner, params)
    return params
